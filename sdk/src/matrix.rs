//! Small symmetric matrices: moment matrices, curvatures, covariances.
//!
//! *In*: the packed upper triangle of a symmetric matrix, as a statistic carries it. *Out*: solutions and inverses by Cholesky.
//! Noise can make a moment matrix indefinite: `inverse` then says `None`, and `Symmetric::damped` adds the least ridge that cures it.

/// A symmetric matrix of order n. Packed row by row: (0,0), (0,1) .. (0,n-1), (1,1) ..: n (n + 1) / 2 entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Symmetric {
    order: usize,
    packed: Vec<f64>,
}

/// How many entries the packed triangle of an `order` by `order` matrix has.
#[must_use]
pub const fn packed_len(order: usize) -> usize {
    order * (order + 1) / 2
}

/// The largest Euclidean norm of the packed triangle of `x x'`, for x with entries within -1..1 and a squared norm of at most
/// `norm_squared`: the triangle's squared norm is (|x|^4 + sum of x_i^4) / 2, and x_i^4 is at most x_i^2.
#[must_use]
pub fn outer_norm(norm_squared: f64) -> f64 {
    ((norm_squared * norm_squared + norm_squared) / 2.0).sqrt()
}

/// Adds `weight * x x'` to a packed triangle.
///
/// # Panics
/// If `packed` is not of the length that `x` asks for.
pub fn add_outer(packed: &mut [f64], x: &[f64], weight: f64) {
    assert!(packed.len() == packed_len(x.len()), "a packed triangle of order {} has {} entries", x.len(), packed_len(x.len()));
    let mut entries = packed.iter_mut();
    for (row, a) in x.iter().enumerate() {
        for (b, entry) in x[row..].iter().zip(&mut entries) {
            *entry += weight * a * b;
        }
    }
}

impl Symmetric {
    /// From a packed triangle.
    ///
    /// # Panics
    /// If the length is not that of an `order` by `order` triangle.
    #[must_use]
    pub fn from_packed(order: usize, packed: Vec<f64>) -> Self {
        assert!(packed.len() == packed_len(order), "a packed triangle of order {order} has {} entries", packed_len(order));
        Self { order, packed }
    }

    /// Rows, which are as many as columns.
    #[must_use]
    pub const fn order(&self) -> usize {
        self.order
    }

    /// Entry (row, column), 0-based.
    ///
    /// # Panics
    /// Outside the matrix.
    #[must_use]
    pub fn at(&self, row: usize, column: usize) -> f64 {
        let (low, high) = (row.min(column), row.max(column));
        assert!(high < self.order, "entry ({row}, {column}) of a matrix of order {}", self.order);
        self.packed[low * self.order - low * low.saturating_sub(1) / 2 - low + high]
    }

    /// The leading block of rows and columns 0..`order`.
    #[must_use]
    pub fn leading(&self, order: usize) -> Self {
        Self::build(order, |row, column| self.at(row, column))
    }

    /// From a function of row and column, asked for row <= column only.
    pub fn build(order: usize, mut entry: impl FnMut(usize, usize) -> f64) -> Self {
        let packed =
            (0..order).flat_map(|row| (row..order).map(move |column| (row, column))).map(|(r, c)| entry(r, c)).collect();
        Self { order, packed }
    }

    /// The matrix times a vector.
    #[must_use]
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        (0..self.order).map(|row| x.iter().enumerate().map(|(column, x)| self.at(row, column) * x).sum()).collect()
    }

    /// The matrix times itself.
    #[must_use]
    pub fn squared(&self) -> Self {
        Self::build(self.order, |row, column| (0..self.order).map(|k| self.at(row, k) * self.at(k, column)).sum())
    }

    /// The matrix with `ridge` added to its diagonal.
    #[must_use]
    pub fn plus_ridge(&self, ridge: f64) -> Self {
        Self::build(self.order, |row, column| self.at(row, column) + if row == column { ridge } else { 0.0 })
    }

    /// x with `self x = b`; `None` unless positive definite.
    #[must_use]
    pub fn solve(&self, b: &[f64]) -> Option<Vec<f64>> {
        let lower = self.cholesky()?;
        let n = self.order;
        let mut x = b.to_vec();
        for row in 0..n {
            for k in 0..row {
                x[row] -= lower[row * n + k] * x[k];
            }
            x[row] /= lower[row * n + row];
        }
        for row in (0..n).rev() {
            for k in row + 1..n {
                x[row] -= lower[k * n + row] * x[k];
            }
            x[row] /= lower[row * n + row];
        }
        Some(x)
    }

    /// Of a moment matrix of `[x, y]`, y last: the coefficients of the least squares fit of y on x, and the sum of squares left.
    /// Where the noise hides directions of x (`floor`, see [`Symmetric::damped`]) they are damped. `None` if nothing helps.
    #[must_use]
    pub fn least_squares(&self, floor: f64) -> Option<(Vec<f64>, f64)> {
        let last = self.order.checked_sub(1)?;
        let xy: Vec<f64> = (0..last).map(|row| self.at(row, last)).collect();
        let beta = self.leading(last).damped(floor.max(1e-9)).0.solve(&xy)?;
        let explained: f64 = beta.iter().zip(&xy).map(|(b, xy)| b * xy).sum();
        Some((beta, self.at(last, last) - explained))
    }

    /// The inverse; `None` unless positive definite.
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        let columns: Option<Vec<Vec<f64>>> = (0..self.order)
            .map(|k| self.solve(&(0..self.order).map(|row| if row == k { 1.0 } else { 0.0 }).collect::<Vec<_>>()))
            .collect();
        let columns = columns?;
        Some(Self::build(self.order, |row, column| columns[column][row]))
    }

    /// The matrix, with the least ridge out of 0, `floor`, 2 `floor`, 4 `floor` .. that makes all its eigenvalues at least
    /// `floor`; and that ridge. `floor` is above 0: say twice the noise of an entry times the root of the order.
    #[must_use]
    pub fn damped(&self, floor: f64) -> (Self, f64) {
        let mut ridge = 0.0;
        for _ in 0..200 {
            if self.plus_ridge(ridge - floor).cholesky().is_some() {
                break;
            }
            ridge = if ridge == 0.0 { floor } else { ridge * 2.0 };
        }
        (self.plus_ridge(ridge), ridge)
    }

    fn cholesky(&self) -> Option<Vec<f64>> {
        let n = self.order;
        let mut lower = vec![0.0; n * n];
        for row in 0..n {
            for column in 0..=row {
                let known: f64 = (0..column).map(|k| lower[row * n + k] * lower[column * n + k]).sum();
                let rest = self.at(row, column) - known;
                if row == column {
                    if !(rest > 0.0 && rest.is_finite()) {
                        return None;
                    }
                    lower[row * n + row] = rest.sqrt();
                } else {
                    lower[row * n + column] = rest / lower[column * n + column];
                }
            }
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_and_solving_agree() {
        let mut packed = vec![0.0; packed_len(3)];
        for x in [[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [1.0, -1.0, 3.0], [2.0, 0.1, 0.2]] {
            add_outer(&mut packed, &x, 0.5);
        }
        let matrix = Symmetric::from_packed(3, packed);
        assert_eq!((matrix.at(0, 1), matrix.at(1, 0)), (matrix.at(1, 0), matrix.at(0, 1)));
        assert!((matrix.at(1, 2) - 0.5 * (1.0 - 1.0 - 3.0 + 0.02)).abs() < 1e-12);
        let x = matrix.solve(&matrix.times(&[1.0, -2.0, 3.0])).unwrap();
        x.iter().zip([1.0, -2.0, 3.0]).for_each(|(got, want)| assert!((got - want).abs() < 1e-9));
        let inverse = matrix.inverse().unwrap();
        for row in 0..3 {
            let unit: Vec<f64> = (0..3).map(|k| f64::from(k == row)).collect();
            let back = matrix.times(&inverse.times(&unit));
            assert_eq!(matrix.squared().times(&unit)[0], matrix.times(&matrix.times(&unit))[0]);
            back.iter().zip(&unit).for_each(|(got, want)| assert!((got - want).abs() < 1e-9));
        }
    }

    #[test]
    fn least_squares_finds_a_line() {
        let mut packed = vec![0.0; packed_len(3)];
        for (x, off) in [(-1.0, 0.1), (-0.5, -0.1), (0.5, -0.1), (1.0, 0.1)] {
            add_outer(&mut packed, &[1.0, x, 0.25 + 0.5 * x + off], 1.0); // the offsets are orthogonal to 1 and x
        }
        let (beta, squares) = Symmetric::from_packed(3, packed).least_squares(0.0).unwrap();
        assert!((beta[0] - 0.25).abs() < 1e-9 && (beta[1] - 0.5).abs() < 1e-9 && (squares - 0.04).abs() < 1e-9);
    }

    #[test]
    fn no_triangle_is_longer_than_the_bound() {
        let mut uniform = crate::testing::Gauss::new(3);
        for order in 1..6_u32 {
            for times in 0..200 {
                // Corners now and then: there the bound is met.
                let mut entry = || if times % 7 == 0 { 1.0 } else { 2.0 * uniform.uniform() - 1.0 };
                let x: Vec<f64> = (0..order).map(|_| entry()).collect();
                let mut packed = vec![0.0; packed_len(x.len())];
                add_outer(&mut packed, &x, 1.0);
                let norm = packed.iter().map(|p| p * p).sum::<f64>().sqrt();
                assert!(norm <= outer_norm(x.iter().map(|x| x * x).sum()) * (1.0 + 1e-12));
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_is_refused_and_cured() {
        let matrix = Symmetric::from_packed(2, vec![1.0, 2.0, 1.0]); // eigenvalues 3 and -1
        assert_eq!(matrix.solve(&[1.0, 1.0]), None);
        let (cured, ridge) = matrix.damped(0.5);
        assert!(cured.inverse().is_some() && (1.5..=2.0).contains(&ridge), "{ridge}");
        assert_eq!(Symmetric::from_packed(2, vec![2.0, 0.0, 2.0]).damped(0.5).1, 0.0);
    }
}
