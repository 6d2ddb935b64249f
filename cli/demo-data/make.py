"""Makes the data of `vestibule demo` from the source distribution of the PyPI package peddy 0.4.8 (MIT).

    pip download peddy==0.4.8 --no-deps --no-binary :all: && tar xzf peddy-0.4.8.tar.gz
    python3 make.py peddy-0.4.8/peddy

Genotypes and continental groups are real: 2,504 people of the 1000 Genomes Project, phase 3 (open data), as peddy ships them.
Ids, ages, sexes and traits are simulated here, with a fixed seed; three variants are given an effect on the trait.
"""

import gzip
import pathlib
import random
import re
import struct
import sys
import zlib

VARIANTS = 600
EFFECT = 0.7
PLANTED = 3
GROUPS = ["AFR", "AMR", "EAS", "EUR", "SAS"]
SITES = {"AFR": "accra", "AMR": "bogota", "EAS": "kyoto", "EUR": "leiden", "SAS": "pune"}


def bgzf(path, data):
    """Writes BGZF (SAM specification, section 4.1): gzip members of at most 64 KiB, and an empty one at the end."""
    with open(path, "wb") as out:
        for start in [*range(0, len(data), 65280), None]:
            piece = b"" if start is None else data[start : start + 65280]
            press = zlib.compressobj(9, zlib.DEFLATED, -15)
            body = press.compress(piece) + press.flush()
            head = struct.pack("<4BI2BH2BHH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
            out.write(head + body + struct.pack("<II", zlib.crc32(piece), len(piece)))


def main(peddy):
    here = pathlib.Path(__file__).parent
    groups = [int(word) for word in re.search(r'_str = "([0-9|]+)"', (peddy / "pca.py").read_text()).group(1).split("|")]
    people = len(groups)
    # peddy numbers the groups in the order of their names.
    names = re.search(r"ipops\s*=\s*(.+)", (peddy / "pca.py").read_text()).group(1)
    print("peddy's groups:", names)
    sites = [line.strip().split(":") for line in open(peddy / "GRCH37.sites")]
    genotypes = gzip.open(peddy / "GRCH37.sites.bin.gz").read()
    rows = [genotypes[i * people : (i + 1) * people] for i in range(len(sites))]
    common = [i for i, row in enumerate(rows) if sites[i][0].isdigit() and 0.1 < sum(row) / (2 * people) < 0.9 and max(row) < 3]
    random.seed(7)
    chosen = sorted(random.sample(common, VARIANTS), key=lambda i: (int(sites[i][0]), int(sites[i][1])))
    planted = random.sample([k for k, i in enumerate(chosen) if 0.3 < sum(rows[i]) / (2 * people) < 0.7], PLANTED)
    with open(here / "panel.catalogue.tsv", "w") as out, open(here / "truth.tsv", "w") as truth:
        out.write("#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n")
        truth.write("contig\tposition\tref\talt\tfrequency\teffect\n")
        for k, i in enumerate(chosen):
            out.write("\t".join(sites[i]) + "\n")
            effect = EFFECT if k in planted else 0
            truth.write("\t".join([*sites[i], f"{sum(rows[i]) / (2 * people):.6f}", str(effect)]) + "\n")
    for number, group in enumerate(GROUPS):
        members = [p for p in range(people) if groups[p] == number]
        ids = [f"{group}{k + 1:04d}" for k in range(len(members))]
        folder = here / SITES[group]
        folder.mkdir(exist_ok=True)
        with open(folder / "people.csv", "w") as out:
            out.write("id,age,sex,trait\n")
            for person, name in zip(members, ids):
                age, sex = random.randint(30, 80), random.choice("FM")
                effect = sum(EFFECT * (rows[chosen[k]][person] - 1) for k in planted)
                trait = effect + 0.01 * (age - 55) + 0.2 * (sex == "M") + random.gauss(0, 1)
                out.write(f"{name},{age},{sex},{trait:.3f}\n")
        head = ["##fileformat=VCFv4.2", '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
        head += [f"##contig=<ID={c}>" for c in sorted({sites[i][0] for i in chosen}, key=int)]
        head += ["\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *ids])]
        calls = ["0/0", "0/1", "1/1"]
        for i in chosen:
            contig, position, ref, alt = sites[i]
            head.append("\t".join([contig, position, ".", ref, alt, ".", ".", ".", "GT", *(calls[rows[i][p]] for p in members)]))
        bgzf(folder / "genotypes.vcf.gz", ("\n".join(head) + "\n").encode())
        print(group, SITES[group], len(members))


main(pathlib.Path(sys.argv[1]))
