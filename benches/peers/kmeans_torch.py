"""Lloyd's K-Means in PyTorch on a device: the counterpart of `measure kmeans --on-device`.

Seeding is k-means++ over a sample, as on the other side; rows stay on the device.
"""

import sys

from common import emit, imported, need, parser, repeat, times, torch_with_threads

CHUNK = 16384  # Rows whose distances are computed at once.


def seed(torch, rows, k, generator):
    """Greedy k-means++ over 16 rows for each cluster, at least 8192."""
    sample = rows[torch.randperm(len(rows), generator=generator)[: max(16 * k, 8192)].to(rows.device)]
    trials = 2 + k.bit_length()
    first = int(torch.randint(len(sample), (1,), generator=generator))
    centres = [sample[first]]
    nearest = (sample - centres[0]).square().sum(1)
    for _ in range(1, k):
        chosen = torch.multinomial(nearest, min(trials, len(sample)), replacement=True)
        distances = torch.minimum(torch.cdist(sample[chosen], sample).square(), nearest)
        best = int(distances.sum(1).argmin())
        centres.append(sample[chosen[best]])
        nearest = distances[best]
    return torch.stack(centres)


def assign(torch, rows, centres):
    """The nearest centre of every row, and the sum of squared distances."""
    half = centres.square().sum(1) / 2
    nearest = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        nearest[start : start + CHUNK] = torch.addmm(half, part, centres.T, alpha=-1).argmin(1)
    return nearest


def inertia(torch, rows, centres):
    nearest = assign(torch, rows, centres)
    total = 0.0
    for start in range(0, len(rows), CHUNK):
        gap = rows[start : start + CHUNK] - centres[nearest[start : start + CHUNK]]
        total += float(gap.double().square().sum())
    return total


def fit(torch, rows, k, iterations, generator):
    centres = seed(torch, rows, k, generator)
    for _ in range(iterations):
        nearest = assign(torch, rows, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        counts = torch.bincount(nearest, minlength=k)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("rows", help=".npy file of rows")
    arguments.add_argument("--n", type=int, help="the first n rows; all without it")
    arguments.add_argument("--k", type=int, default=1024)
    arguments.add_argument("--iterations", type=int, default=10)
    arguments.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ..")
    args = arguments.parse_args()
    numpy = need("numpy")
    torch = torch_with_threads(args.threads)
    imported()
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        sys.exit(f"device {args.device}: {error}; pass --device cpu")
    cuda = device.type == "cuda"
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = False
    host = torch.from_numpy(numpy.ascontiguousarray(numpy.load(args.rows, mmap_mode="r")[: args.n]))
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)
    fitted = []

    def run(repetition):
        # The way to the device counts, as it does on the other side.
        fitted[:] = [fit(torch, host.to(device), args.k, args.iterations, generator).cpu()]

    seconds = repeat(run, args.warmup, args.steps)
    emit(
        "torch",
        {
            "measure": "kmeans",
            "version": torch.__version__,
            "device": torch.cuda.get_device_name(device) if cuda else "cpu",
            "threads": torch.get_num_threads(),
            "inertia": inertia(torch, host.to(device), fitted[0].to(device)),
            "peak_device_mib": torch.cuda.max_memory_allocated(device) / 2**20 if cuda else None,
            "settings": {
                "n": len(host), "d": int(host.shape[1]), "k": args.k, "iterations": args.iterations,
            },
            **times(seconds, len(host)),
        },
    )


if __name__ == "__main__":
    main()
