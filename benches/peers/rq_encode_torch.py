"""Greedy residual encoding in PyTorch, faiss and vector-quantize-pytorch: the counterparts of
`measure rq-encode`, over the same rows and codebooks.

Codes are compared with those that `measure rq-encode --codes` wrote; near-ties may differ.
"""

import sys

from common import emit, imported, need, parser, repeat, times, torch_with_threads

CHUNK = 16384  # Rows that go through all levels at once.


def with_torch(rows, books, args):
    """A product, an argmin and a subtraction for each level."""
    torch = torch_with_threads(args.threads)
    imported()
    rows = torch.from_numpy(rows)
    books = [torch.from_numpy(book) for book in books]
    halves = [book.square().sum(1) / 2 for book in books]
    codes = torch.empty(len(rows), len(books), dtype=torch.int64)

    def encode(repetition):
        for start in range(0, len(rows), args.chunk):
            residual = rows[start : start + args.chunk]
            for level, (book, half) in enumerate(zip(books, halves)):
                nearest = torch.addmm(half, residual, book.T, alpha=-1).argmin(1)
                codes[start : start + args.chunk, level] = nearest
                if level + 1 < len(books):
                    residual = residual - book[nearest]

    return encode, codes.numpy, f"torch {torch.__version__}", torch.get_num_threads()


def with_faiss(rows, books, args):
    """faiss.ResidualQuantizer with a beam of 1."""
    faiss = need("faiss", "faiss-cpu")
    numpy = need("numpy")
    if args.threads > 0:
        faiss.omp_set_num_threads(args.threads)
    bits = int(books[0].shape[0]).bit_length() - 1
    if any(len(book) != 1 << bits for book in books):
        sys.exit("faiss needs codebooks of one size, a power of two")
    quantizer = faiss.ResidualQuantizer(rows.shape[1], len(books), bits)
    quantizer.max_beam_size = 1
    flat = numpy.concatenate(books).ravel()
    faiss.copy_array_to_vector(flat, quantizer.codebooks)
    quantizer.compute_codebook_tables()
    quantizer.is_trained = True
    result = []

    def encode(repetition):
        result[:] = [quantizer.compute_codes(rows)]

    def codes():
        if bits != 8:
            return None  # Packed bits; only whole bytes are read here.
        return result[0]

    return encode, codes, f"faiss {faiss.__version__}", faiss.omp_get_max_threads()


def with_vq(rows, books, args):
    """vector_quantize_pytorch.ResidualVQ."""
    torch = torch_with_threads(args.threads)
    module = need("vector_quantize_pytorch", "vector-quantize-pytorch")
    size, width = books[0].shape
    model = module.ResidualVQ(
        dim=width, codebook_size=size, num_quantizers=len(books), kmeans_init=False
    ).eval()
    for layer, book in zip(model.layers, books):
        layer._codebook.embed.data.copy_(torch.from_numpy(book)[None])
    rows = torch.from_numpy(rows)
    codes = torch.empty(len(rows), len(books), dtype=torch.int64)

    def encode(repetition):
        with torch.inference_mode():
            for start in range(0, len(rows), args.chunk):
                part = rows[None, start : start + args.chunk]
                codes[start : start + args.chunk] = model(part)[1][0]

    from importlib.metadata import version

    name = f"vector-quantize-pytorch {version('vector-quantize-pytorch')}"
    return encode, codes.numpy, name, torch.get_num_threads()


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("rows", help=".npy file of rows")
    arguments.add_argument("codebooks", help=".npy file, codebooks one below the other")
    arguments.add_argument("--sizes", default="256,256,256,256")
    arguments.add_argument("--n", type=int, help="the first n rows; all without it")
    arguments.add_argument("--method", default="torch", choices=["torch", "faiss", "vq"])
    arguments.add_argument("--chunk", type=int, default=CHUNK)
    arguments.add_argument("--codes", help="safetensors file with the other side's codes")
    args = arguments.parse_args()
    numpy = need("numpy")
    rows = numpy.ascontiguousarray(numpy.load(args.rows, mmap_mode="r")[: args.n])
    sizes = [int(size) for size in args.sizes.split(",")]
    table = numpy.load(args.codebooks)
    starts = numpy.cumsum([0] + sizes)
    books = [numpy.ascontiguousarray(table[a:b]) for a, b in zip(starts, starts[1:])]
    method = {"torch": with_torch, "faiss": with_faiss, "vq": with_vq}[args.method]
    encode, codes, version, threads = method(rows, books, args)
    seconds = repeat(encode, args.warmup, args.steps)
    agreement = None
    if args.codes:
        from safetensors.numpy import load_file

        mine = codes()
        if mine is not None:
            theirs = load_file(args.codes)["codes"].reshape(len(rows), len(sizes))
            agreement = float((mine == theirs).all(1).mean())
            if agreement < 0.999:
                sys.exit(f"not the same codes: only {agreement:.4%} of the rows agree")
    emit(
        args.method,
        {
            "measure": "rq-encode",
            "version": version,
            "threads": threads,
            "agreement": agreement,
            "settings": {"n": len(rows), "d": int(rows.shape[1]), "sizes": sizes},
            **times(seconds, len(rows)),
        },
    )


if __name__ == "__main__":
    main()
