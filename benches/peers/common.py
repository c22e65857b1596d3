"""What the counterparts share: arguments, times, memory, one JSON line."""

import argparse
import json
import os
import platform
import statistics
import sys
import time


def need(module, package=None):
    """Imports a module, or ends with a line that says what to install."""
    try:
        return __import__(module)
    except ImportError as error:
        package = package or module
        sys.exit(f"{error}; install it: pip install {package} (see benches/peers/requirements.txt)")


def parser(description):
    """Arguments that every measurement has."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--threads", type=int, default=0, help="0 leaves the choice to the library")
    result.add_argument("--warmup", type=int, default=2, help="repetitions that are not counted")
    result.add_argument("--steps", type=int, default=5, help="repetitions of which the median is taken")
    result.add_argument("--seed", type=int, default=0)
    return result


def torch_with_threads(threads):
    """PyTorch with a number of threads."""
    torch = need("torch")
    if threads > 0:
        torch.set_num_threads(threads)
    return torch


def status(name):
    """A line of /proc/self/status in MiB; None where there is no such file."""
    try:
        with open("/proc/self/status") as lines:
            for line in lines:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


IMPORTED = {}


def imported():
    """Notes what the process holds before it has done anything: the libraries."""
    IMPORTED["mib"] = status("VmRSS")


def repeat(work, warmup, steps, synchronise=lambda: None):
    """Seconds of every timed repetition; `work` is given the number of the repetition."""
    seconds = []
    for repetition in range(warmup + steps):
        started = time.perf_counter()
        work(repetition)
        synchronise()
        if repetition >= warmup:
            seconds.append(time.perf_counter() - started)
    return seconds


def times(seconds, units):
    """Times as they go into the JSON line; `units` are done in each repetition."""
    middle = statistics.median(seconds)
    return {"seconds": middle, "all_seconds": seconds, "per_second": units / middle}


def waited():
    """Seconds that the threads of this process were ready but had no processor; None if not told."""
    total = 0
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/schedstat") as file:
                total += int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return total / 1e9


def hardware():
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def emit(side, measured):
    """Prints the line."""
    line = {
        "side": side,
        "rss_imported_mib": IMPORTED.get("mib"),
        "python": platform.python_version(),
        "hardware": hardware(),
        "peak_rss_mib": status("VmHWM"),
        "waited_seconds": waited(),
    }
    line.update(measured)
    print(json.dumps(line), flush=True)
