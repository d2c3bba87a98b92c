"""Terrane beside PyTorch, OpenBLAS and ncnn on the processor: the same shapes, in one run, in turns. Started by peers.sh, which
sets the environment; see there."""
import argparse
import ctypes
import fnmatch
import json
import os
import shlex
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PRODUCTS = ["197x768x768", "197x768x2304", "197x768x3072", "197x3072x768", "1576x768x3072", "1024x1024x1024"]
ENCODERS = ["mae-vit-base", "prithvi-v1-100m", "hiera-tiny", "hiera-base"]
DATES = {"prithvi-v1-100m": 3, "prithvi-v2-300m": 1}  # of an image; models.py builds the same
FLOPS_AGREE = 0.05  # Terrane counts norms and activations, too


def rows_all(ncnn):
    """Name, kind, what and batch; ncnn's row is there when its program is."""
    rows = [("product-" + size, "product", size, 0) for size in PRODUCTS]
    rows += [(f"{name}-{batch}", "encoder", name, batch) for name in ENCODERS for batch in (1, 8)]
    rows += [("training-hiera-tiny-8", "training", "hiera-tiny", 8)]
    return rows + [("ncnn-mae-vit-base-1", "ncnn", "mae-vit-base", 1)] * bool(ncnn)


# ---- the peer: a process of its own that works when it is told to ----


def load_blas():
    """OpenBLAS itself, of the flavour whose folder peers.sh put first."""
    names = ["libopenblas.so.0", "libblas.so.3"]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    sys.exit("no OpenBLAS: install libopenblas0-openmp")


def make_product(size):
    import numpy

    m, k, n = (int(part) for part in size.split("x"))
    blas = load_blas()
    random = numpy.random.default_rng(0)
    x, w = random.random((m, k), numpy.float32), random.random((n, k), numpy.float32)
    y = numpy.zeros((m, n), numpy.float32)
    pointers = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for a in (x, w, y)]
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    row_major, plain, transposed = 101, 111, 112

    def run():  # x w^T, as a linear layer; short ones several times, as a clock is no finer
        for _ in range(repeats):
            blas.cblas_sgemm(row_major, plain, transposed, m, n, k, one, pointers[0], k, pointers[1], k, zero,
                             pointers[2], n)

    repeats = 1
    run()
    expected = x[0].astype(numpy.float64) @ w[0].astype(numpy.float64)
    if abs(y[0, 0] - expected) > 1e-3 * abs(expected):
        sys.exit(f"OpenBLAS computed {y[0, 0]} where {expected} is right")
    repeats = max(1, int(2e9 / (2.0 * m * k * n)))
    return run, repeats, 2.0 * m * k * n


def make_encoder(name, batch):
    import torch

    import models

    model = models.build(name).eval()
    image = models.make_image(model, batch)
    flops = models.count_flops(model, image)

    def run():
        with torch.no_grad():
            model(image)

    return run, 1, flops


def make_training(name, batch):
    import models

    step = models.TrainingStep(name, batch)
    return step, 1, models.count_flops(step.model, step.image)


def blas_flavour():
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "blas" in line}
    return ", ".join(sorted(paths)) or "none"


def worker(kind, name, batch, threads):
    sys.path.insert(0, HERE)
    if kind != "product":
        import torch

        torch.set_num_threads(threads)
    make = {"product": lambda: make_product(name), "encoder": lambda: make_encoder(name, batch),
            "training": lambda: make_training(name, batch)}
    run, repeats, flops = make[kind]()
    run()  # not counted
    print(json.dumps({"flops": flops, "blas": blas_flavour()}), flush=True)
    for line in sys.stdin:
        seconds, cpu = [], []
        for _ in range(int(line)):
            wall, used = time.perf_counter(), time.process_time()
            run()
            seconds.append((time.perf_counter() - wall) / repeats)
            cpu.append((time.process_time() - used) / repeats)
        print(json.dumps({"seconds": statistics.median(seconds), "cpu": statistics.median(cpu)}), flush=True)


class Peer:
    def __init__(self, options, kind, name, batch):
        """ncnn is on the same driver as Terrane, and like it without the settings for the processor's libraries."""
        worker_ = ["--worker", kind, name, str(batch), str(options.threads)]
        command = [sys.executable, "-B", os.path.join(HERE, "peers.py")] + worker_
        environment = None
        if kind == "ncnn":
            command, environment = shlex.split(options.ncnn), terrane_environment()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the peer's process ended without an answer (see above)")
        return json.loads(line)

    def time(self, runs):
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- Terrane: a new process each time, with an environment free of the peer's ----


def terrane_environment():
    own = ("OMP_", "GOMP_", "OPENBLAS_", "ATEN_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    environment.pop("LD_LIBRARY_PATH", None)
    if os.environ.get("PEERS_LIBRARY_PATH"):  # what the caller had
        environment["LD_LIBRARY_PATH"] = os.environ["PEERS_LIBRARY_PATH"]
    return environment


def run_terrane(options, kind, name, batch, runs):
    command = shlex.split(options.terrane) + ["bench", "--json", "-q", "--runs", str(runs)]
    if kind == "product":
        command += ["--product", name]
    elif kind in ("encoder", "ncnn"):
        dates = ["--dates", str(DATES[name])] if name in DATES else []
        command += ["--only", "encoders", "--model", name, "--batch", str(batch)] + dates
    else:
        command += ["--only", "training", "--model", name, "--batch", str(batch)]
    command += shlex.split(options.bench_options)
    done = subprocess.run(command, env=terrane_environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    entries = json.loads(done.stdout)["entries"]
    entry = max(entries, key=lambda one: one.get("flop", 0))  # of a product: not the casts around it
    if kind == "training":
        return {"seconds": entry["step_seconds_median"], "cpu": entry["step_cpu_seconds_median"],
                "flops": entry["gflop"] * 1e9, "device": entry["device"]}
    if kind == "product":
        return {"seconds": entry["seconds_median"], "cpu": entry["cpu_seconds"], "flops": entry["flop"], "device": entry["device"]}
    return {"seconds": entry["seconds_median"], "cpu": entry["cpu_seconds_median"], "flops": entry["gflop"] * 1e9,
            "device": entry["device"]}


# ---- both in turns ----


def check_flops(label, ours, theirs):
    if abs(ours / theirs - 1) > FLOPS_AGREE:
        sys.exit(f"{label}: Terrane does {ours * 1e-9:.3f} GFLOP and the peer {theirs * 1e-9:.3f}: not the same work")


def measure(options, row):
    label, kind, name, batch = row
    peer = Peer(options, kind, name, batch)
    ours, theirs = [], []
    for turn in range(options.rounds + 1):  # the first turn warms both and is not counted
        mine = run_terrane(options, kind, name, batch, options.runs if turn else 1)
        other = peer.time(options.runs if turn else 1)
        if not turn:
            check_flops(label, mine["flops"], peer.about["flops"])
            continue
        ours.append(mine)
        theirs.append(other)
    peer.close()
    result = {"row": label, "device": mine["device"], "blas": peer.about["blas"], "gflop": peer.about["flops"] * 1e-9}
    for who, list_ in (("terrane", ours), ("peer", theirs)):
        result[who + "_seconds"] = statistics.median(one["seconds"] for one in list_)
        cpu = [one["cpu"] for one in list_ if one["cpu"] is not None]
        result[who + "_cpu_seconds"] = statistics.median(cpu) if cpu else None
    result["ratio"] = result["peer_seconds"] / result["terrane_seconds"]
    result["cpu_ratio"] = (result["peer_cpu_seconds"] / result["terrane_cpu_seconds"]
                           if result["terrane_cpu_seconds"] else None)
    return result


def show(result):
    step = 3 if result["row"].startswith("training") else 1  # a step is about three forward passes
    rates = [step * result["gflop"] / result[who + "_seconds"] for who in ("terrane", "peer")]
    cpu = f"{result['cpu_ratio']:9.2f}" if result["cpu_ratio"] else f"{'-':>9}"
    print(f"{result['row']:<26} {result['terrane_seconds'] * 1e3:11.3f} {result['peer_seconds'] * 1e3:11.3f} "
          f"{result['ratio']:7.2f} {cpu} {rates[0]:9.1f} {rates[1]:9.1f}", flush=True)


def chosen(only, ncnn):
    rows = rows_all(ncnn)
    if not only:
        return rows
    patterns = only.split(",")
    for pattern in patterns:
        if not any(fnmatch.fnmatch(row[0], pattern) for row in rows):
            sys.exit(f"--only: no row is called '{pattern}'; there are {', '.join(row[0] for row in rows)}")
    return [row for row in rows if any(fnmatch.fnmatch(row[0], pattern) for pattern in patterns)]


def main():
    if len(sys.argv) == 6 and sys.argv[1] == "--worker":
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(prog="peers.sh", description=__doc__)
    parser.add_argument("--terrane", default="build/release/terrane", metavar="COMMAND",
                        help="the program, with a wrapper in front if it is to run on another driver")
    parser.add_argument("--ncnn", metavar="COMMAND",
                        help="ncnn's program (see ncnn.c), with the same wrapper in front: adds a row")
    parser.add_argument("--only", metavar="ROWS", help="names with commas between; * stands for anything")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side that count (3)")
    parser.add_argument("--runs", type=int, default=3, help="timed runs in a turn (3)")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())),
                        help="of the peer (OMP_NUM_THREADS, or all)")
    parser.add_argument("--bench-options", default="", metavar="OPTIONS", help="more options of terrane bench")
    parser.add_argument("--json", action="store_true", help="a JSON object a row instead of the table")
    parser.add_argument("--list", action="store_true", help="the names of the rows")
    options = parser.parse_args()
    rows = chosen(options.only, options.ncnn)
    if options.list:
        print("\n".join(row[0] for row in rows))
        return
    for i, row in enumerate(rows):
        result = measure(options, row)
        if options.json:
            print(json.dumps(result), flush=True)
            continue
        if not i:
            print(f"Terrane on {result['device']}; peers on {options.threads} threads, BLAS: {result['blas']}")
            print("medians; ratio above 1: Terrane is faster; of processor time in the next column")
            print(f"{'row':<26} {'Terrane, ms':>11} {'peer, ms':>11} {'ratio':>7} {'cpu ratio':>9} {'GFLOP/s':>9} "
                  f"{'peer':>9}")
        show(result)


if __name__ == "__main__":
    main()
