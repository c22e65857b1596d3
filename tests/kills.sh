#!/usr/bin/env bash
# Kills `train`, `grow` and `cart-serve` at random moments, many times, and checks what is left.
#
#   tests/kills.sh TARGET [TRAIN [GROW [SERVE [SEED]]]]
#
# TARGET is the folder of the built programs (target/release); the numbers say how often
# each program is killed (200, 100 and 200). Needs python3. It makes its own small data.
#
# train: however often it was killed, the same command with --resume ends with the index of a
#        training that was never killed. Half of the kills fall in the last tenth of the run.
# grow:  the same command again ends with the index of a run that was never killed; what a killed
#        run left is an index that loads, or none.
# serve: a restarted service has every change that was acknowledged, and none by half.
set -euo pipefail
exec python3 - "$@" <<'PYTHON'
import hashlib, json, os, random, shutil, signal, struct, subprocess, sys, tempfile, threading, time
import urllib.error, urllib.request

target = os.path.abspath(sys.argv[1])
counts = [int(n) for n in sys.argv[2:5]] + [200, 100, 200][len(sys.argv[2:5]):]
seed = int(sys.argv[5]) if len(sys.argv) > 5 else 1
rng = random.Random(seed)
root = tempfile.mkdtemp(prefix="kills-")
problems = []
COLOURS, SHAPES = ["red", "green", "blue", "grey", "pink"], ["cat", "dog", "boat", "tree", "star", "cup"]
DIM, N = 12, 90

RECIPE = """
dataset = "kills"
protocol = "kills"
seed = 1
[train]
except_last = true
[queries]
last = true
VALIDATION
[audit]
same_item = "warn"
[tokenizer]
vocabulary = 200
[model]
max_tokens = 16
d_model = 32
d_ff = 64
n_heads = 2
encoder_layers = 1
decoder_layers = 1
dropout = 0.1
[quantizer.coarse]
k = 4
[quantizer.fine]
method = "rq-vae"
sizes = [4, 4]
epochs = 4
[health]
min_used_share = 0.1
max_shared_items = 1.0
[training]
epochs = 6
batch_size = 16
learning_rate = 2e-3
validations = 5
[training.loss]
r_drop = 0.0
[beam]
width = 20
"""


def make_data():
    data = os.path.join(root, "data")
    os.mkdir(data)
    draw = random.Random(7)
    rows = [[draw.gauss(0, 1) for _ in range(DIM)] for _ in range(N)]
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (N, DIM)
    header = header.ljust(117) + "\n"
    with open(os.path.join(data, "features.npy"), "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for row in rows:
            file.write(struct.pack("<%df" % DIM, *row))
    ids = ["item%03d" % i for i in range(N)]
    with open(os.path.join(data, "ids.txt"), "w") as file:
        file.writelines(i + "\n" for i in ids)
    with open(os.path.join(data, "captions.jsonl"), "w") as file:
        for number, i in enumerate(ids):
            for version in range(3):
                words = [draw.choice(COLOURS), draw.choice(SHAPES), "n%d" % number, "v%d" % version]
                file.write(json.dumps({"id": i, "caption": "a " + " ".join(words)}) + "\n")
    for name, validation in [("plain", ""), ("validated", "[validation]\nlast = true")]:
        with open(os.path.join(root, name + ".toml"), "w") as file:
            file.write(RECIPE.replace("VALIDATION", validation))
    return data


def digest(folder):
    """The files of an index, but for the lock."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if name != ".lock":
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def start(program, *args):
    errors = tempfile.TemporaryFile()
    folder = target if program == "cart-serve" else os.path.join(target, "examples")
    command = [os.path.join(folder, program), *args]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    child.errors = errors
    return child


def said(child):
    child.errors.seek(0)
    return child.errors.read().decode(errors="replace").strip()[-400:]


def finish(what, *args):
    child = start(*args)
    if child.wait() != 0:
        problems.append("%s: %s" % (what, said(child)))
        return False
    return True


def kill_after(seconds, child):
    """True where it was killed, False where it had ended."""
    try:
        child.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        return True


def moment(whole):
    """Half of the moments in the last tenth."""
    return whole * (rng.uniform(0.9, 1.02) if rng.random() < 0.5 else rng.uniform(0.0, 0.9))


def train(data, times):
    kills = wrong = trainings = 0
    for recipe in ["plain", "validated"]:
        share = times // 2 if recipe == "plain" else times - kills
        args = ["train", "--data", data, "--recipe", os.path.join(root, recipe + ".toml")]
        reference = os.path.join(root, "reference-" + recipe)
        began = time.time()
        if not finish("train", *args, "--out", reference):
            return kills, trainings, 1
        whole, expected, here = time.time() - began, digest(reference), 0
        while here < share:
            out = os.path.join(root, "train")
            for folder in [out, out + "-training"]:
                shutil.rmtree(folder, ignore_errors=True)
            trainings += 1
            for _ in range(rng.randint(1, 5)):
                child = start(*args, "--out", out, "--resume")
                if not kill_after(moment(whole), child):
                    if child.returncode != 0:
                        problems.append("train --resume: " + said(child))
                    break
                here += 1
            if not finish("train --resume", *args, "--out", out, "--resume"):
                wrong += 1
            elif digest(out) != expected:
                problems.append("train: another index after kills, recipe " + recipe)
                wrong += 1
        kills += here
    return kills, trainings, wrong


def grow(data, times):
    args = ["grow", "--data", data, "--recipe", os.path.join(root, "plain.toml"), "--batch", "3"]
    reference, out = os.path.join(root, "reference-grow"), os.path.join(root, "grow")
    began = time.time()
    if not finish("grow", *args, "--out", reference):
        return 0, 0, 1
    whole, expected = time.time() - began, digest(reference)
    kills = wrong = runs = 0
    while kills < times:
        shutil.rmtree(out, ignore_errors=True)
        runs += 1
        for _ in range(rng.randint(1, 4)):
            child = start(*args, "--out", out)
            if not kill_after(moment(whole), child):
                if child.returncode != 0:
                    problems.append("grow: " + said(child))
                break
            kills += 1
            if os.path.exists(os.path.join(out, "manifest.json")):
                if not finish("search after a kill", "search", "--index", out, "a red cat"):
                    wrong += 1
        if not finish("grow again", *args, "--out", out):
            wrong += 1
        elif digest(out) != expected:
            problems.append("grow: another index after kills")
            wrong += 1
    return kills, runs, wrong


def ask(port, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (port, path), data, method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def listed(port, prefix=""):
    """All ids below a prefix. The service shows at most 200 at once, so larger ones are split."""
    found = ask(port, "GET", "/api/prefix?limit=200&tokens=" + prefix)
    ids = {item["id"] for item in found["items"]}
    if len(ids) < found["count"]:
        parts = [listed(port, (prefix + "-" if prefix else "") + str(token)) for token in range(4)]
        ids = set().union(*parts)
    assert len(ids) == found["count"], "%d ids of %d" % (len(ids), found["count"])
    return ids


def serving(index, port):
    child = start("cart-serve", "--index", index, "--listen", "127.0.0.1:%d" % port, "--compact-mib", "1")
    for _ in range(600):
        if child.poll() is not None:
            return child, False
        try:
            ask(port, "GET", "/api/info")
            return child, True
        except (OSError, urllib.error.URLError):
            time.sleep(0.02)
    return child, False


def serve(times):
    index = os.path.join(root, "served")
    shutil.copytree(os.path.join(root, "reference-plain"), index)
    known = {"item%03d" % i for i in range(N)}
    port, kills, changes, number, wrong = 20000 + os.getpid() % 20000, 0, 0, 0, 0
    own = []
    while kills <= times:
        child, up = serving(index, port)
        if not up:
            problems.append("serve does not start: " + said(child))
            child.kill()
            return kills, changes, wrong + 1
        found = listed(port)
        if found not in [known, *open_change(known, serve.last)]:
            problems.append("serve: %d ids, expected %d" % (len(found), len(known)))
            wrong += 1
        known, serve.last = found, None
        own = [i for i in own if i in known]
        if kills == times:
            child.kill()
            child.wait()
            break
        until = time.time() + rng.uniform(0.0, 0.25)
        killer = threading.Timer(max(0.0, until - time.time()), child.kill)
        killer.start()
        try:
            while True:
                if own and rng.random() < 0.5:
                    gone = [own.pop(rng.randrange(len(own)))]
                    serve.last = ("remove", set(gone))
                    ask(port, "DELETE", "/api/items", {"ids": gone})
                    known = known - set(gone)
                elif rng.random() < 0.1:
                    serve.last = None
                    ask(port, "POST", "/api/compact")
                else:
                    new = ["new%d" % (number + i) for i in range(2)]
                    number += 2
                    items = [{"id": i, "features": [rng.gauss(0, 1) for _ in range(DIM)]} for i in new]
                    serve.last = ("add", set(new))
                    ask(port, "POST", "/api/items", {"items": items})
                    known = known | set(new)
                    own += new
                serve.last = None
                changes += 1
        except urllib.error.HTTPError as error:
            # Full codes are an answer, not a fault.
            serve.last = None
            if error.code >= 500:
                problems.append("serve: %d %s" % (error.code, error.read()[:200]))
                wrong += 1
        except (OSError, urllib.error.URLError, ValueError, EOFError):
            pass
        except Exception as error:  # a connection cut in the middle of an answer
            if type(error).__module__ != "http.client":
                raise
        killer.join()
        child.wait()
        if serve.last and serve.last[0] == "add":
            own += serve.last[1]
        kills += 1
    return kills, changes, wrong


def open_change(known, last):
    """States that a change leads to which was sent, and not answered."""
    if not last:
        return []
    return [known | last[1] if last[0] == "add" else known - last[1]]


serve.last = None
data = make_data()
began = time.time()
kills, trainings, wrong = train(data, counts[0])
print("train: %d kills in %d trainings, %d wrong" % (kills, trainings, wrong), flush=True)
if counts[1]:
    kills, runs, wrong = grow(data, counts[1])
    print("grow: %d kills in %d runs, %d wrong" % (kills, runs, wrong), flush=True)
if counts[2]:
    kills, changes, wrong = serve(counts[2])
    print("serve: %d kills, %d changes acknowledged, %d wrong" % (kills, changes, wrong), flush=True)
for problem in problems[:20]:
    print("  " + problem)
print("seed %d, %.0f s" % (seed, time.time() - began))
if problems:
    print("left in", root)
    sys.exit(1)
shutil.rmtree(root)
PYTHON
