"""Runs both sides in turns, and makes a table of what they say."""

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DISTURBED = 0.05  # Share of disturbance from which a ratio is marked.


def binary(given=None):
    """The measuring program, or an end with the command that builds it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = Path(given) if given else target / "release" / "measure"
    if not path.is_file():
        sys.exit(
            f"{path} is missing; build it: cargo build --release -p cart-lab --bin measure "
            "(or name it with --binary)"
        )
    return str(path)


def check_python(python, modules):
    """Ends with a line that says what to install, where modules are missing."""
    code = (
        "import importlib.util as u, sys\n"
        "print(' '.join(m for m in sys.argv[1:] if u.find_spec(m) is None))"
    )
    try:
        result = subprocess.run(
            [python, "-c", code, *modules], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{python} does not run: {error}; name another Python with --python")
    missing = result.stdout.split()
    if missing:
        sys.exit(
            f"{python} has no {', '.join(missing)}; install what is missing: "
            f"{python} -m pip install -r {HERE / 'requirements.txt'}"
        )


class Machine:
    """How busy the machine is."""

    def __init__(self):
        self.ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

    def busy(self):
        """Seconds that all processors worked since the start; None where that is not told."""
        try:
            with open("/proc/stat") as lines:
                fields = [int(value) for value in lines.readline().split()[1:]]
        except (OSError, ValueError):
            return None
        user, nice, system, _, _, irq, softirq, steal = fields[:8]
        return (user + nice + system + irq + softirq + steal) / self.ticks

    def wait_until_quiet(self, most_seconds, share=0.1):
        """Waits for a second in which less than a share of the processors works."""
        until = time.monotonic() + most_seconds
        while time.monotonic() < until:
            before = self.busy()
            time.sleep(1.0)
            after = self.busy()
            if before is None or after - before < share * os.cpu_count():
                return


class GpuMemory(threading.Thread):
    """The most memory that a process has on NVIDIA GPUs, MiB, as nvidia-smi sees it."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.stopped = pid, None, threading.Event()

    def run(self):
        query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        while not self.stopped.wait(0.2):
            try:
                out = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout
            except (OSError, subprocess.TimeoutExpired):
                return
            for line in out.splitlines():
                pid, _, used = line.partition(",")
                if pid.strip() == str(self.pid) and used.strip().isdigit():
                    self.most = max(self.most or 0, int(used))


def call(command, threads, gpu=False):
    """Runs one side; its JSON line, with how far other programs disturbed it.

    That is the smaller of two shares: of the processors that others took, and of its time that it
    was ready and had none. Others may run in gaps that we leave, and threads of one program may
    wait for each other; neither alone is a disturbance.
    """
    env = dict(os.environ)
    if threads > 0:
        env |= {name: str(threads) for name in (
            "OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    machine = Machine()
    before, started = machine.busy(), time.monotonic()
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=env, cwd=ROOT,
    )
    memory = GpuMemory(process.pid)
    if gpu:
        memory.start()
    errors = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    out = process.stdout.read()
    reader.join()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    memory.stopped.set()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if process.returncode != 0 or not lines:
        tail = "\n".join(errors[0].splitlines()[-25:])
        raise RuntimeError(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{tail}")
    result = json.loads(lines[-1])
    elapsed, after = time.monotonic() - started, machine.busy()
    waited = result.get("waited_seconds")
    if waited is not None and before is not None:
        own = usage.ru_utime + usage.ru_stime
        others = max(after - before - own, 0.0) / (elapsed * os.cpu_count())
        result["disturbed"] = round(min(waited / (own + waited), others), 3)
    if gpu:
        result["gpu_mib"] = memory.most
    return result


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


class Table:
    """Measurements of both sides, run in turns."""

    def __init__(self, rounds, threads, quiet=0.0, gpu=False):
        self.rounds, self.threads, self.quiet, self.gpu = rounds, threads, quiet, gpu
        self.rows, self.machine = [], Machine()

    def alternate(self, name, unit, ours, theirs, quality=None):
        """Runs our commands and theirs (each by label) in turns; adds a row for each pair.

        `quality` names a number in the JSON lines to show beside the times.
        """
        sides = {("ours", label): command for label, command in ours.items()}
        sides |= {("theirs", label): command for label, command in theirs.items()}
        results = {side: [] for side in sides}
        for turn in range(self.rounds):
            for side, command in sides.items():
                if results[side] is None:
                    continue
                self.machine.wait_until_quiet(self.quiet)
                label = f"{name}, round {turn + 1}, {side[1]}"
                try:
                    result = call(command, self.threads, self.gpu)
                except RuntimeError as error:
                    print(f"{label}: {error}", file=sys.stderr, flush=True)
                    results[side] = None
                    continue
                results[side].append(result)
                print(
                    f"{label}: {result['seconds']:.4g} s, disturbed {result.get('disturbed', 0):.0%}",
                    file=sys.stderr, flush=True,
                )
        for mine in ours:
            for peer in theirs:
                one, other = results["ours", mine], results["theirs", peer]
                row = {"name": name, "unit": unit, "side": mine, "against": peer}
                if one:
                    row["ours"] = self.summary(one, quality)
                if other:
                    row["theirs"] = self.summary(other, quality)
                if one and other:
                    # Speed of one by the speed of the other, round by round.
                    ratios = [b["seconds"] / a["seconds"] for a, b in zip(one, other)]
                    row |= {"ratio": median(ratios), "ratios": ratios}
                else:
                    row["failed"] = " and ".join(
                        label for label, result in ((mine, one), (peer, other)) if not result
                    )
                self.rows.append(row)

    @staticmethod
    def summary(results, quality):
        keep = ("version", "python", "threads", "backend", "device", "hardware", "settings", "dtype",
                "compiled", "attention", "optimizer", "parameters", "agreement", "answers")
        summary = {key: results[0][key] for key in keep if key in results[0]}
        for key in ("seconds", "per_second", "peak_rss_mib", "rss_imported_mib", "gpu_mib",
                    "peak_device_mib", "disturbed", quality):
            if key is not None:
                summary[key] = median([result.get(key) for result in results])
        summary["rounds"] = [result["seconds"] for result in results]
        return summary

    def markdown(self):
        """The rows as a table."""
        lines = [
            "| work | ours | against | speed | theirs | ratio | peak memory, MiB, ours / theirs "
            "(imports alone) | disturbed, ours / theirs |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            if "failed" in row:
                lines.append(
                    f"| {row['name']} | {row['side']} | {row['against']} | | | {row['failed']} failed "
                    "| | |"
                )
                continue
            ours, theirs, unit = row["ours"], row["theirs"], row["unit"]
            memory = f"{whole(ours['peak_rss_mib'])} / {whole(theirs['peak_rss_mib'])}"
            if theirs.get("rss_imported_mib"):
                memory += f" ({whole(theirs['rss_imported_mib'])})"
            if ours.get("gpu_mib") or theirs.get("gpu_mib"):
                memory += f"; GPU {whole(ours.get('gpu_mib'))} / {whole(theirs.get('gpu_mib'))}"
            spread = f"{row['ratio']:.2f} x"
            if len(row["ratios"]) > 1:
                spread += f" ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})"
            disturbed = [side.get("disturbed") or 0 for side in (ours, theirs)]
            if max(disturbed) > DISTURBED:
                spread += ", disturbed"
            lines.append(
                f"| {row['name']} | {row['side']} | {row['against']} | {shown(ours, unit)} "
                f"| {shown(theirs, unit)} | {spread} | {memory} | {disturbed[0]:.0%} / {disturbed[1]:.0%} |"
            )
        return "\n".join(lines)


def whole(value):
    return "?" if value is None else f"{value:.0f}"


def shown(side, unit):
    """Seconds, or units per second, with the quality where there is one."""
    if unit == "s":
        text = f"{side['seconds']:.3g} s"
    elif unit == "ms":
        text = f"{side['seconds'] * 1e3:.3g} ms"
    else:
        text = f"{side['per_second']:.3g} {unit}"
    if side.get("inertia") is not None:
        text += f", inertia {side['inertia']:.5g}"
    return text


def heading(python, modules):
    """Versions and hardware, in words and as a dictionary."""
    code = (
        "import importlib.metadata as m, sys, json, platform\n"
        "v = {'python': platform.python_version()}\n"
        "for p in sys.argv[1:]:\n"
        "    try: v[p] = m.version(p)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(v))"
    )
    found = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True)
    versions = json.loads(found.stdout or "{}")
    processor = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    processor = line.split(":", 1)[1].strip()
                    break
    except OSError:
        pass
    gpus = []
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        result = subprocess.run(query, capture_output=True, text=True, timeout=30)
        gpus = result.stdout.strip().splitlines() if result.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        pass
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    facts = {
        "processor": processor, "cores": os.cpu_count(), "gpus": gpus, "system": platform.platform(),
        "versions": versions, "commit": commit, "date": time.strftime("%Y-%m-%d"),
    }
    words = (
        f"{processor}, {os.cpu_count()} cores"
        + "".join(f"; {gpu}" for gpu in gpus)
        + "; " + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; cart-retrieval {commit}"
    )
    return words, facts


def write(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
