"""faiss.Kmeans: the counterpart of `measure kmeans`, over the same rows.

Both sides are scored alike: the sum of squared distances of all rows to their nearest final centre,
computed here. With --score, centres that `measure kmeans --centres` wrote are scored and nothing is
timed.
"""

import os

from common import emit, imported, need, parser, repeat, times


def inertia(faiss, numpy, rows, centres):
    """Sum of squared distances of rows to their nearest centre."""
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(numpy.ascontiguousarray(centres, dtype=numpy.float32))
    total = 0.0
    for start in range(0, len(rows), 65536):
        part = rows[start : start + 65536]
        nearest = index.search(part, 1)[1][:, 0]
        # Not the distances that the search returns: those lose digits where norms are large.
        total += float(numpy.square(part - centres[nearest], dtype=numpy.float64).sum())
    return total


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("rows", help=".npy file of rows")
    arguments.add_argument("--n", type=int, help="the first n rows; all without it")
    arguments.add_argument("--k", type=int, default=1024)
    arguments.add_argument("--iterations", type=int, default=10)
    arguments.add_argument("--score", help="safetensors file with a tensor `centres`")
    args = arguments.parse_args()
    if args.threads > 0:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    numpy = need("numpy")
    faiss = need("faiss", "faiss-cpu")
    if args.threads > 0:
        faiss.omp_set_num_threads(args.threads)
    imported()
    rows = numpy.load(args.rows, mmap_mode="r")[: args.n]
    n, d = rows.shape
    settings = {"n": n, "d": d, "k": args.k, "iterations": args.iterations}
    if args.score:
        need("safetensors")
        from safetensors.numpy import load_file

        centres = load_file(args.score)["centres"]
        emit("faiss", {"measure": "score", "inertia": inertia(faiss, numpy, rows, centres)})
        return
    data = numpy.ascontiguousarray(rows)
    fitted = []

    def fit(repetition):
        # All rows, as on the other side: faiss would take 256 for each centre.
        kmeans = faiss.Kmeans(
            d, args.k, niter=args.iterations, nredo=1, seed=args.seed + 1,
            min_points_per_centroid=1, max_points_per_centroid=n,
        )
        kmeans.train(data)
        fitted[:] = [kmeans]

    seconds = repeat(fit, args.warmup, args.steps)
    emit(
        "faiss",
        {
            "measure": "kmeans",
            "version": faiss.__version__,
            "threads": faiss.omp_get_max_threads(),
            "inertia": inertia(faiss, numpy, rows, fitted[0].centroids),
            "settings": settings,
            **times(seconds, n),
        },
    )


if __name__ == "__main__":
    main()
