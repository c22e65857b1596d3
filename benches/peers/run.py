"""Runs this library and its PyTorch, faiss and vector-quantize-pytorch counterparts in turns, and
prints a table of ratios.

    cargo build --release -p cart-lab --bin measure
    python benches/peers/run.py --threads 2

A ratio is our speed by theirs: above 1, ours is faster. Each side says what it is measuring; the
PyTorch networks are checked against dumped weights and gradients before they are timed. The last
column says how far other programs disturbed a side: where it is not near zero, the figures are not to
be trusted.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from alternate import HERE, Table, binary, call, check_python, heading, write

MODULES = ["numpy", "torch", "faiss", "vector_quantize_pytorch", "safetensors", "transformers", "PIL"]
PACKAGES = ["torch", "faiss-cpu", "vector-quantize-pytorch", "numpy", "transformers", "pillow"]
WORKS = ["train-step", "train-step-r-drop", "rqvae-step", "rqvae-step-gradient", "kmeans", "kmeans-even",
         "kmeans-1m", "rq-encode", "queries", "media", "clip"]


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(WORKS), help="some of: " + ", ".join(WORKS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default=sys.executable, help="Python of the counterparts")
    parser.add_argument("--binary", help="our program; target/release/measure without it")
    parser.add_argument("--backend", help="ours; the preferred one of the build without it")
    parser.add_argument("--work", default=Path(tempfile.gettempdir()) / "cart-peers",
                        type=Path, help="folder for weights and rows, kept between runs")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try everything out")
    parser.add_argument("--quiet", type=float, default=0,
                        help="seconds to wait for a quiet machine before each turn")
    parser.add_argument("--compile", action="store_true", help="also against torch.compile")
    parser.add_argument("--json", help="file for all numbers")
    parser.add_argument("--markdown", help="file for the table")
    args = parser.parse_args()
    unknown = set(args.only.split(",")) - set(WORKS)
    if unknown:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    return args


def make_rows(path, n, d, spread, seed):
    """Rows around so many centres (none without), unit variance, unless they are there."""
    import numpy

    if path.exists() and numpy.load(path, mmap_mode="r").shape == (n, d):
        return path
    generator = numpy.random.default_rng(seed)
    centres = generator.standard_normal((max(spread, 1), d), dtype=numpy.float32)
    partial = path.with_suffix(".partial.npy")
    rows = numpy.lib.format.open_memmap(partial, "w+", numpy.float32, (n, d))
    for start in range(0, n, 65536):
        part = generator.standard_normal((min(65536, n - start), d), dtype=numpy.float32)
        if spread:
            part *= 0.6
            part += 0.8 * centres[generator.integers(0, spread, len(part))]
        rows[start : start + len(part)] = part
    rows.flush()
    del rows
    partial.rename(path)
    return path


def default_backend(program, args):
    """The backend that our program takes when it is not told."""
    small = ["rq-encode", "--n", "256", "--d", "8", "--sizes", "16", "--steps", "1", "--warmup", "0"]
    return call([program, *small], args.threads)["backend"]


def main():
    args = arguments()
    # The rows are made in this process.
    check_python(sys.executable, ["numpy"])
    check_python(args.python, MODULES)
    program = binary(args.binary)
    args.label = args.backend or default_backend(program, args)
    args.work.mkdir(parents=True, exist_ok=True)
    table = Table(args.rounds, args.threads, args.quiet)
    wanted = args.only.split(",")

    def ours(*command):
        backend = ["--backend", args.backend] if args.backend else []
        return [program, *command, *backend, "--threads", args.threads]

    def theirs(script, *command):
        return [args.python, HERE / script, *command, "--threads", args.threads]

    train(args, table, wanted, ours, theirs)
    rqvae(args, table, wanted, ours, theirs)
    kmeans(args, table, wanted, ours, theirs)
    encode(args, table, wanted, ours, theirs)
    queries(args, table, wanted, ours, theirs)
    media(args, table, wanted, ours, theirs)
    clip(args, table, wanted, ours, theirs)

    words, facts = heading(args.python, PACKAGES)
    text = f"{words}; {args.threads} threads, medians of {args.rounds} rounds\n\n{table.markdown()}\n"
    print(text)
    if args.markdown:
        write(args.markdown, text)
    if args.json:
        facts |= {"threads": args.threads, "rounds": args.rounds, "rows": table.rows}
        write(args.json, json.dumps(facts, indent=2) + "\n")
    if any("failed" in row for row in table.rows):
        sys.exit("a measurement failed; its error is above")


SMALL = ["--width", "96", "--heads", "4", "--encoder-layers", "2", "--decoder-layers", "2",
         "--vocabulary", "2000", "--batch", "16"]


def train(args, table, wanted, ours, theirs):
    """Training steps."""
    if not {"train-step", "train-step-r-drop"} & set(wanted):
        return
    size = SMALL if args.quick else []
    folder = args.work / ("train-quick" if args.quick else "train")
    call(ours("dump", "--to", folder, "--shortest", "8", *size), args.threads)
    call(theirs("cart_torch.py", folder, "--check-only"), args.threads)
    steps = ["--warmup", "2", "--steps", "3" if args.quick else "5"]
    for work, r_drop in [("train-step", "0"), ("train-step-r-drop", "1")]:
        if work not in wanted:
            continue
        peer = theirs("cart_torch.py", folder, "--unchecked", "--r-drop", r_drop, *steps)
        against = {"PyTorch eager": peer}
        if args.compile:
            against["torch.compile"] = [*peer, "--compile"]
        name = "training step" + (", R-Drop" if r_drop == "1" else "")
        mine = ours("train-step", "--r-drop", r_drop, *size, *steps)
        table.alternate(name, "samples/s", {args.label: mine}, against)


def rqvae(args, table, wanted, ours, theirs):
    """Steps of the RQ-VAE."""
    for work, option in [("rqvae-step", []), ("rqvae-step-gradient", ["--gradient"])]:
        if work not in wanted:
            continue
        size = ["--batch", "256", "--d", "64", "--latent", "32"] if args.quick else []
        folder = args.work / (work + "-quick" if args.quick else work)
        call(ours("dump-rqvae", "--to", folder, *option, *size), args.threads)
        steps = ["--warmup", "1", "--steps", "3", "--epoch", "16" if args.quick else "32"]
        against = {"PyTorch eager": theirs("rqvae_torch.py", folder, *steps)}
        if args.compile:
            against["torch.compile"] = [*against["PyTorch eager"], "--compile"]
        name = f"RQ-VAE step, {'gradient' if option else 'moving-average'} codebooks"
        mine = ours("rqvae-step", *option, *size, *steps)
        table.alternate(name, "ms", {args.label: mine}, against)


def kmeans(args, table, wanted, ours, theirs):
    """K-Means; both sides' inertia is computed by one program."""
    for work, n, spread in [("kmeans", 100_000, 4096), ("kmeans-even", 100_000, 0),
                            ("kmeans-1m", 1_000_000, 4096)]:
        if work not in wanted:
            continue
        n, d, k = (n // 50, 64, 64) if args.quick else (n, 512, 1024)
        rows = make_rows(args.work / f"rows-{n}-{d}-{spread}.npy", n, d, spread, 3)
        common = ["--n", n, "--k", k, "--iterations", 10, "--warmup", 0, "--steps", 1]
        centres = args.work / f"{work}.safetensors"
        mine = ours("kmeans", "--rows", rows, "--centres", centres, *common)
        structure = f"{spread} clusters" if spread else "no clusters"
        before = len(table.rows)
        table.alternate(
            f"K-Means {n} x {d}, K = {k}, 10 iterations, {structure}", "s", {"host": mine},
            {"faiss.Kmeans": theirs("kmeans_faiss.py", rows, *common)}, "inertia",
        )
        for row in table.rows[before:]:
            if "ratio" in row:
                score = theirs("kmeans_faiss.py", rows, "--n", n, "--score", centres)
                row["ours"]["inertia"] = call(score, args.threads)["inertia"]


def encode(args, table, wanted, ours, theirs):
    """Residual encoding."""
    if "rq-encode" not in wanted:
        return
    n, d = (50_000, 32) if args.quick else (1_000_000, 128)
    rows = make_rows(args.work / f"encode-{n}-{d}.npy", n, d, 1024, 4)
    books = make_rows(args.work / f"books-{d}.npy", 1024, d, 0, 5)
    codes = args.work / "codes.safetensors"
    common = ["--n", n, "--warmup", 1, "--steps", 3]
    mine = ours("rq-encode", "--rows", rows, "--codebooks", books, "--codes", codes, *common)
    peer = theirs("rq_encode_torch.py", rows, books, "--codes", codes, *common)
    table.alternate(
        f"RQ encoding, {n} x {d}, 4 x 256", "s", {"host": mine},
        {
            "torch GEMM + argmin": peer,
            "faiss ResidualQuantizer": [*peer, "--method", "faiss"],
            "vector-quantize-pytorch": [*peer, "--method", "vq"],
        },
    )


def queries(args, table, wanted, ours, theirs):
    """Constrained beam search, text encoder included."""
    if "queries" not in wanted:
        return
    candidates = 2000 if args.quick else 100_000
    size = SMALL[:-2] if args.quick else []
    folder = args.work / ("queries-quick" if args.quick else "queries")
    dump = ["dump", "--to", folder, "--candidates", candidates, "--batch", "8", "--tokens", "16"]
    call(ours(*dump, *size), args.threads)
    for batch, beam, steps in [(32, 20, 3), (32, 10, 3), (1, 20, 20)]:
        common = ["--tokens", "16", "--batch", batch, "--beam", beam]
        common += ["--warmup", "2", "--steps", steps]
        table.alternate(
            f"queries, {candidates} candidates, beam {beam}, batch {batch}", "queries/s",
            {args.label: ours("queries", "--candidates", candidates, *common, *size)},
            {"PyTorch eager": theirs("search_torch.py", folder, *common)},
        )
    common = ["--tokens", "16", "--batch", "32", "--beam", "20", "--warmup", "1", "--steps", "3"]
    common += ["--candidates", candidates]
    both = ours("queries", *common, *size)
    table.alternate(
        f"queries, {candidates} candidates, beam 20, batch 32", "queries/s",
        {
            f"{args.label}, no fusion": ours("queries", *common, *size, "--fusion", "none"),
            f"{args.label}, both fusions": both,
        },
        {"transformers generate, no fusion": theirs("generate_transformers.py", *common, *size[:8])},
    )


def media(args, table, wanted, ours, theirs):
    """Pictures from their files to what CLIP reads."""
    if "media" not in wanted:
        return
    count = 48 if args.quick else 240
    for kind in ["jpg", "png", "webp"]:
        folder = args.work / f"pictures-{count}-{kind}"
        call(theirs("media_python.py", folder, "--make", count, "--kind", kind), args.threads)
        steps = ["--warmup", "1", "--steps", "3"]
        table.alternate(
            f"{count} pictures of 500 x 375, {kind}, prepared for CLIP", "items/s",
            {"host": ours("media", folder, "--work", "pictures", *steps)},
            {"Pillow + numpy": theirs("media_python.py", folder, *steps)},
        )


def clip(args, table, wanted, ours, theirs):
    """The image tower of CLIP ViT-B/32."""
    if "clip" not in wanted:
        return
    size = ["--width", "128", "--layers", "2"] if args.quick else []
    common = ["--batch", "32", "--warmup", "2", "--steps", "5", *size]
    table.alternate(
        "CLIP ViT-B/32, 32 pictures at once", "items/s",
        {args.label: ours("clip", *common)}, {"transformers": theirs("clip_transformers.py", *common)},
    )


if __name__ == "__main__":
    main()
