"""Everything there is to say about a GPU, in one run: the parity suite, then training, K-Means and
queries against PyTorch, eager and compiled, in turns.

    python benches/gpu/run.py                  # cargo, an NVIDIA GPU, PyTorch for CUDA
    python benches/gpu/run.py --device cpu --quick   # without a GPU, to try the script

Builds the measuring program for each of --backends, runs the parity suite on them, and writes a
Markdown table and all numbers as JSON. A part that fails does not stop the others; the exit status
says that one did.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from alternate import HERE as PEERS, ROOT, Table, call, check_python, heading, write  # noqa: E402
from run import SMALL, make_rows  # noqa: E402

PARTS = ["parity", "training", "kmeans", "queries"]
MODULES = ["numpy", "torch", "safetensors"]


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="gpu:0", help="gpu:0, gpu:1, .. or cpu")
    parser.add_argument("--backends", help="of ours, with commas; tch,cuda on a GPU, flex on the CPU")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side")
    parser.add_argument("--candidates", default="1000,100000,1000000", help="for the queries")
    parser.add_argument("--beams", default="10,20", help="for the queries")
    parser.add_argument("--batches", default="32,128", help="for the queries")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", default=sys.executable, help="Python of the counterparts")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-bf16", action="store_true", help="leave PyTorch in bf16 out")
    parser.add_argument("--no-build", action="store_true", help="the programs are built already")
    parser.add_argument("--torch-lib", help="folder of the LibTorch that tch is to use; the one of "
                        "--python without it")
    parser.add_argument("--work", default=Path(tempfile.gettempdir()) / "cart-gpu", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try everything out")
    parser.add_argument("--out", default=ROOT / "out" / "gpu", type=Path,
                        help="folder for table.md and table.json")
    args = parser.parse_args()
    args.cpu = args.device == "cpu"
    args.backends = (args.backends or ("flex" if args.cpu else "tch,cuda")).split(",")
    args.parts = args.parts.split(",")
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"--parts: unknown {', '.join(sorted(unknown))}")
    args.torch_device = "cpu" if args.cpu else args.device.replace("gpu", "cuda")
    return args


def check_gpu(args):
    """Ends with a line that says what is missing."""
    if args.cpu:
        return
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
        listed = found.returncode == 0 and "GPU" in found.stdout
    except OSError:
        listed = False
    if not listed:
        sys.exit("nvidia-smi finds no GPU; install NVIDIA's driver, or try the script with "
                 "--device cpu --quick")
    code = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    if subprocess.run([args.python, "-c", code]).returncode != 0:
        sys.exit(f"the PyTorch of {args.python} sees no GPU; install a build for CUDA")


def environment(args):
    """Variables that let burn-tch build against the PyTorch that the peers use."""
    env = dict(os.environ)
    if "tch" in args.backends and "LIBTORCH" not in env:
        folder = args.torch_lib
        if folder is None:
            code = "import os, torch; print(os.path.dirname(torch.__file__))"
            result = subprocess.run([args.python, "-c", code], capture_output=True, text=True)
            folder = result.stdout.strip()
        env["LIBTORCH"] = folder
    if "LIBTORCH" in env:
        env.setdefault("LIBTORCH_BYPASS_VERSION_CHECK", "1")
        libraries = os.path.join(env["LIBTORCH"], "lib")
        env["LD_LIBRARY_PATH"] = os.pathsep.join(
            part for part in (libraries, env.get("LD_LIBRARY_PATH")) if part
        )
    return env


def features(args):
    # Kernel fusion and autotuning are what CubeCL's backends are fast by.
    cubecl = {"cuda", "wgpu", "vulkan"} & set(args.backends)
    return ",".join([*args.backends, *(["fusion", "autotune"] if cubecl else [])])


def build(args, env):
    """The measuring program with all backends, and where it is."""
    target = Path(env.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "release" / "measure"
    if not args.no_build:
        command = ["cargo", "build", "--release", "-p", "cart-lab", "--bin", "measure", "--no-default-features",
                   "--features", features(args)]
        print(" ".join(command), file=sys.stderr, flush=True)
        if subprocess.run(command, cwd=ROOT, env=env).returncode != 0:
            sys.exit("the build failed; its error is above. tch needs LIBTORCH or a PyTorch of the "
                     "version that burn-tch 0.21 expects; cuda needs the CUDA toolkit")
    if not program.is_file():
        sys.exit(f"{program} is missing; run without --no-build")
    return program


def parity(args, env):
    """The parity suite on the device; a line for the report."""
    command = ["cargo", "test", "--release", "--features", features(args), "--test", "parity"]
    print(" ".join(command), file=sys.stderr, flush=True)
    env = env | {"CART_DEVICE": args.device}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    lines = [line for line in result.stdout.splitlines() if line.startswith("test result:")]
    failed = [line.split()[1] for line in result.stdout.splitlines()
              if line.startswith("test ") and line.endswith("FAILED")]
    if result.returncode != 0:
        print(result.stdout[-6000:], result.stderr[-6000:], file=sys.stderr, sep="\n")
    report = " ".join(lines) or f"did not run (exit status {result.returncode})"
    return report + (f" Failed: {', '.join(failed)}." if failed else ""), result.returncode == 0


class Sides:
    """Commands of both sides."""

    def __init__(self, args, program):
        self.args, self.program = args, program

    def ours(self, backend, *command):
        args = self.args
        return [self.program, *command, "--backend", backend, "--device", args.device,
                "--threads", args.threads]

    def each(self, *command):
        """The command on every backend."""
        return {backend: self.ours(backend, *command) for backend in self.args.backends}

    def theirs(self, script, *command):
        args = self.args
        return [args.python, PEERS / script, *command, "--device", args.torch_device,
                "--threads", args.threads]

    def variants(self, peer):
        """PyTorch eager, compiled, and both in bf16."""
        variants = {"PyTorch eager": peer}
        if not self.args.no_compile:
            variants["torch.compile"] = [*peer, "--compile"]
        if not self.args.no_bf16:
            variants["PyTorch eager, bf16"] = [*peer, "--dtype", "bf16"]
            if not self.args.no_compile:
                variants["torch.compile, bf16"] = [*peer, "--dtype", "bf16", "--compile"]
        return variants


def training(args, table, sides):
    """Training samples a second."""
    size = SMALL if args.quick else []
    # Repetitions enough for kernels to be tuned and compiled before they are timed.
    steps = ["--warmup", "2", "--steps", "3"] if args.quick else ["--warmup", "15", "--steps", "50"]
    folder = args.work / "train"
    call(sides.ours(args.backends[0], "dump", "--to", folder, "--shortest", "8", *size), args.threads)
    call(sides.theirs("cart_torch.py", folder, "--check-only"), args.threads)
    for r_drop in ("0", "1"):
        peers = sides.variants(
            sides.theirs("cart_torch.py", folder, "--unchecked", "--r-drop", r_drop, *steps))
        work = ["train-step", "--r-drop", r_drop, *size, *steps]
        mine = sides.each(*work)
        if not (args.no_bf16 or args.cpu):
            half = sides.each(*work, "--precision", "bf16")
            mine |= {f"{backend}, bf16": command for backend, command in half.items()}
        name = f"training step{', R-Drop' if r_drop == '1' else ''}"
        table.alternate(name, "samples/s", mine, peers)


def kmeans(args, table, sides):
    """K-Means with the assignment on the device."""
    sizes = [(5000, 64, 64)] if args.quick else [(100_000, 512, 1024), (1_000_000, 512, 1024)]
    for n, d, k in sizes:
        rows = make_rows(args.work / f"rows-{n}-{d}.npy", n, d, 4096, 3)
        common = ["--n", n, "--k", k, "--iterations", 10, "--warmup", 1, "--steps", 1]
        peer = sides.theirs("kmeans_torch.py", rows, *common)
        mine = sides.each("kmeans", "--rows", rows, "--on-device", *common)
        host = sides.ours(args.backends[0], "kmeans", "--rows", rows, *common)
        name = f"K-Means {n} x {d}, K = {k}, 10 iterations"
        table.alternate(name, "s", mine | {"host": host}, {"PyTorch": peer}, "inertia")


def queries(args, table, sides):
    """Queries a second, text encoder included."""
    size = SMALL[:-2] if args.quick else []
    numbers = lambda text: [int(number) for number in text.split(",")]  # noqa: E731
    counts = [1000, 5000] if args.quick else numbers(args.candidates)
    steps = ["--warmup", "1", "--steps", "2"] if args.quick else ["--warmup", "5", "--steps", "20"]
    for candidates in counts:
        folder = args.work / f"queries-{candidates}"
        dump = ["dump", "--to", folder, "--candidates", candidates, "--batch", "8", "--tokens", "16"]
        call(sides.ours(args.backends[0], *dump, *size), args.threads)
        for beam in numbers(args.beams):
            for batch in ([4] if args.quick else numbers(args.batches)):
                work = ["--tokens", "16", "--batch", batch, "--beam", beam, *steps]
                peers = sides.variants(sides.theirs("search_torch.py", folder, *work))
                mine = sides.each("queries", "--candidates", candidates, *work, *size)
                name = f"queries, {candidates} candidates, beam {beam}, batch {batch}"
                table.alternate(name, "queries/s", mine, peers)


def main():
    args = arguments()
    check_python(sys.executable, ["numpy"])
    check_python(args.python, MODULES)
    check_gpu(args)
    env = environment(args)
    os.environ.update(env)
    program = build(args, env)
    args.work.mkdir(parents=True, exist_ok=True)
    table = Table(args.rounds, args.threads, gpu=not args.cpu)
    sides = Sides(args, program)
    sound, report = True, "not run"
    if "parity" in args.parts:
        report, sound = parity(args, env)
    for name, part in (("training", training), ("kmeans", kmeans), ("queries", queries)):
        if name not in args.parts:
            continue
        try:
            part(args, table, sides)
        except RuntimeError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            sound = False
    words, facts = heading(args.python, ["torch", "numpy"])
    text = (
        f"{words}; device {args.device}, {args.threads} threads, medians of {args.rounds} rounds\n\n"
        f"Parity suite ({', '.join(args.backends)}): {report}\n\n{table.markdown()}\n"
    )
    print(text)
    write(args.out / "table.md", text)
    facts |= {"device": args.device, "rounds": args.rounds, "parity": report, "rows": table.rows}
    write(args.out / "table.json", json.dumps(facts, indent=2) + "\n")
    print(f"written to {args.out}", file=sys.stderr)
    if not sound or any("failed" in row for row in table.rows):
        sys.exit("something failed; its error is above")


if __name__ == "__main__":
    main()
