//! The quick ways to sum are the plain one.

use super::*;

/// xorshift64.
fn numbers(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// With room for so many rows' factors.
fn products(sums: &GenotypeSums, bound: IntegerBound, variants: usize, at_once: usize) -> Products {
    let mut products = Products::new(sums, variants).unwrap();
    products.work = Some(products.work(bound, at_once).unwrap());
    products
}

fn pending(products: &Products) -> Vec<i64> {
    products.work.as_ref().unwrap().pending.iter().map(|factor| i64::from(*factor)).collect()
}

fn class(row: &[u8], variant: usize) -> usize {
    usize::from(row[variant / 4] >> (2 * (variant % 4)) & 3)
}

/// What the fast way must equal: every product by itself. Also says whether every row obeys the bound.
fn plain(products: &Products, bound: IntegerBound, rows: &RowGroup, factors: &[i64]) -> (Vec<i64>, bool) {
    let sets = products.scores.scores.classes().len() / products.variants;
    let mut sums = vec![0_i128; products.factors * sets * products.variants];
    let mut obeys = true;
    for (at, factors) in factors.chunks(products.factors).enumerate() {
        let mut own = vec![0_i128; sums.len()];
        let mut first = 0;
        for packed in rows.packed() {
            let row = packed.bytes().chunks(packed.stride()).nth(at).unwrap();
            for variant in 0..packed.variants() {
                let class = class(row, packed.start() + variant);
                for (f, factor) in factors.iter().enumerate() {
                    for set in 0..sets {
                        let place = set * products.variants + first + variant;
                        let score = products.scores.scores.classes()[place][class];
                        own[f * sets * products.variants + place] = i128::from(*factor) * i128::from(score);
                    }
                }
            }
            first += packed.variants();
        }
        obeys &= match bound {
            IntegerBound::L2 { radius } => {
                own.iter().map(|x| x.unsigned_abs().pow(2)).sum::<u128>() <= u128::from(radius).pow(2)
            }
            IntegerBound::Range { lower, upper } => own.iter().all(|x| (lower.into()..=upper.into()).contains(x)),
            _ => false,
        };
        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    }
    (sums.into_iter().map(|sum| sum.try_into().unwrap()).collect(), obeys)
}

/// Rows of any number, stretches that begin and end anywhere, any factors, sets and scores; and any number of rows whose factors are held.
#[test]
fn sums_are_those_of_every_product_by_itself_and_every_row_obeys_the_bound() {
    let mut next = numbers(0x9E37_79B9_7F4A_7C15);
    let mut below = |limit: u64| usize::try_from(next() % limit).unwrap();
    let mut clipped = 0;
    for case in 0..80 {
        let count = if case == 0 { 1_024 } else { below(40) };
        let stretches: Vec<(usize, usize)> = (0..=below(3))
            .map(|_| {
                let start = below(4_000);
                let widest = if case % 7 == 1 { 4_096 } else { 60 };
                (start, start + 1 + below(widest.min(4_096 - start as u64)))
            })
            .collect();
        let mut fill = numbers(case + 1);
        let rows = RowGroup::of_genotypes(count, &stretches, || fill().to_le_bytes()[0]).unwrap();
        let variants = stretches.iter().map(|(start, end)| end - start).sum();
        let (factors, sets) = (if case % 10 == 4 { 70 } else { 1 + below(3) }, 1 + below(2));
        let scores: Vec<i16> = (0..4 * variants * sets)
            .map(|_| if case % 9 == 2 { i16::MIN } else { i16::try_from(below(4_096)).unwrap() - 2_048 })
            .collect();
        let sums = GenotypeSums { factors: u32::try_from(factors).unwrap(), scores: scores.into() };
        let bound = match case % 3 {
            0 => IntegerBound::L2 { radius: 1 << 45 },
            1 => IntegerBound::L2 { radius: 1 << (20 + below(12)) },
            _ => IntegerBound::Range { lower: -(1 << (20 + below(12))), upper: 1 << (20 + below(12)) },
        };
        let mut whole = products(&sums, bound, variants, GROUP_ROWS);
        let mut some = products(&sums, bound, variants, 1 + below(9));
        let mut given = Vec::new();
        for _ in 0..count {
            // Often all or nothing, as of those who count and those who do not.
            let factor = |draw: usize| [0, 1 << 20, draw as i64 - (1 << 20), draw as i64 - (1 << 20)][draw % 4];
            let row: Vec<i64> = (0..factors).map(|_| factor(below(1 << 21))).collect();
            given.extend(row.iter().map(|factor| (*factor).clamp(-ONE, ONE)));
            for products in [&mut whole, &mut some] {
                products.push(&row).unwrap();
            }
            if some.is_full() {
                assert_eq!(some.push(&row), Err(SumOverflow), "what is due is not lost");
                some.multiply(&rows).unwrap();
            }
        }
        assert!(matches!(bound, IntegerBound::Range { .. }) || pending(&whole) == given);
        if let Some(norms) = &mut whole.work.as_mut().unwrap().norms {
            let mut factors_of_all: Vec<i32> = given.iter().map(|factor| small(*factor)).collect();
            norms.enforce(&rows, &(0..count), factors, &mut factors_of_all);
            clipped += usize::from(factors_of_all.iter().zip(&given).any(|(now, given)| i64::from(*now) != *given));
            given = factors_of_all.into_iter().map(i64::from).collect();
        } else {
            clipped += usize::from(given != pending(&whole));
            given = pending(&whole);
        }
        let (want, obeys) = plain(&whole, bound, &rows, &given);
        assert!(obeys, "case {case}: {bound:?}");
        for mut products in [whole, some] {
            products.multiply(&rows).unwrap();
            products.next_group();
            assert!(pending(&products).is_empty());
            assert_eq!(products.into_steps().unwrap(), want, "case {case}");
        }
    }
    assert!(clipped > 20, "{clipped}");
}

#[test]
fn what_is_missing_or_far_too_large_counts_as_nothing_or_as_one() {
    let sums = GenotypeSums { factors: 1, scores: vec![1, 1, 1, 1].into() };
    let mut products = products(&sums, IntegerBound::L2 { radius: 1 << 40 }, 1, 4);
    let rows = RowGroup::of_genotypes(4, &[(0, 1)], || 0).unwrap();
    products.push(&[]).unwrap();
    products.push(&[i64::MAX]).unwrap();
    products.push(&[i64::MIN]).unwrap();
    products.push(&[3]).unwrap();
    products.multiply(&rows).unwrap();
    products.next_group();
    // Another group's rows after it, with more factors than there are, are not mixed up.
    products.push(&[5, 7]).unwrap();
    products.multiply(&RowGroup::of_genotypes(2, &[(0, 1)], || 0).unwrap()).unwrap();
    // Of a group that has not so many rows: the host's fault, and nothing is made up.
    products.push(&[1]).unwrap();
    products.push(&[1]).unwrap();
    assert_eq!(products.multiply(&RowGroup::of_genotypes(2, &[(0, 1)], || 0).unwrap()), Err(SumOverflow));
    assert_eq!(products.into_steps().unwrap(), [3 + 5]);
}

/// 2^24 individuals of the largest factor and score are within 64 bits, and what is beyond them is refused.
#[test]
fn sums_that_leave_their_range_are_refused() {
    let sums = GenotypeSums { factors: 1, scores: vec![i16::MIN; 4].into() };
    let with = |people: i64| {
        let mut products = Products::new(&sums, 1).unwrap();
        products.sums[0] = [people * ONE, 0, 0, 0];
        products.into_steps()
    };
    assert_eq!(with(1 << 24).unwrap(), [-(1 << 57)]);
    assert_eq!(with(1 << 31), Err(SumOverflow));
}

#[test]
fn factors_are_held_of_as_many_rows_as_fit() {
    for (factors, rows) in [(1, 1_024), (4_096, 1_024), (4_097, 1_023), (1 << 20, 4), (1 << 22, 4)] {
        assert_eq!(at_once(factors), rows);
    }
}

/// What the documents say of time is read here: `cargo test -p vestibule-runtime --lib what_one_row_adds -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_one_row_adds() {
    // The quickest of many: what else the machine does only adds to it.
    let least = |mut work: Box<dyn FnMut() -> f64>| (0..25).map(|_| work()).fold(f64::INFINITY, f64::min);
    let time = |factors: usize, stretches: &[(usize, usize)], people: usize, factor: &dyn Fn(usize, usize) -> i64| {
        let variants = stretches.iter().map(|(start, end)| end - start).sum::<usize>();
        let scores: Vec<i16> = [-1_024, 0, 1_024, 0].repeat(variants);
        let sums = GenotypeSums { factors: u32::try_from(factors).unwrap(), scores: scores.into() };
        let mut fill = numbers(7);
        let rows = RowGroup::of_genotypes(people, stretches, || fill().to_le_bytes()[0]).unwrap();
        let given: Vec<Vec<i64>> = (0..people).map(|row| (0..factors).map(|at| factor(row, at)).collect()).collect();
        let mut products = Products::working(&sums, IntegerBound::L2 { radius: 1 << 47 }, variants).unwrap();
        least(Box::new(move || {
            let start = std::time::Instant::now();
            for row in &given {
                products.push(row).unwrap();
                if products.is_full() {
                    products.multiply(&rows).unwrap();
                }
            }
            products.multiply(&rows).unwrap();
            products.next_group();
            start.elapsed().as_secs_f64() * 1e6
        }))
    };
    let real = |row: usize, at: usize| ((row * 7_919 + at * 104_729) % 400_000) as i64 - 200_000;
    let blocks = [(0, 4_096); 4];
    for (what, factors, factor) in [
        ("1 of everybody", 1, &(|_, _| ONE) as &dyn Fn(usize, usize) -> i64),
        ("1 or 0", 1, &|row, _| if row % 3 == 0 { 0 } else { ONE }),
        ("a real factor of everybody", 1, &real),
        ("8 real factors of everybody", 8, &real),
    ] {
        eprintln!("{what}, 16,384 variants, 700 rows: {:.0} us", time(factors, &blocks, 700, factor));
    }
    // The row behind which numbers of eight digits are full, of as many narrow stretches as a job may have.
    let narrow = [(0, 34); 1_024];
    let (full, more) = (time(1, &narrow, 248, &|_, _| 0), time(1, &narrow, 249, &|_, _| 0));
    let each = (more - full) * 1e3 / (narrow.len() * 34) as f64;
    eprintln!("1,024 stretches of 34: {full:.0} us with 248 rows, {more:.0} with 249 ({each:.2} ns an entry)");
    let one = |row: usize, _: usize| if row == 350 { -ONE / 2 } else { 0 };
    for (factors, stretches) in
        [(20_000, &[(0, 1)][..]), (20_000, &[(0, 33)]), (2_000, &[(0, 32)]), (200, &[(0, 4_096)]), (1, &blocks)]
    {
        let variants = stretches.iter().map(|(start, end)| end - start).sum::<usize>();
        let (none, some) = (time(factors, stretches, 700, &|_, _| 0), time(factors, stretches, 700, &one));
        let (fewer, four) =
            (time(factors, stretches, 699, &|_, _| 0), time(factors, stretches, 700, &|row, _| -i64::from(row < 4)));
        let each = (some - none) * 1e3 / (factors * variants) as f64;
        eprintln!(
            "{factors} factors x {variants} variants: {none:.0} us with nobody, {some:.0} with one of 700 that differs ({each:.2} ns an entry), \
             {four:.0} with four, {fewer:.0} with 699 rows"
        );
    }
}
