#!/usr/bin/env python3
"""Terrane beside PyTorch on a CUDA device: encoders at batch 64 and a matrix product of 4096 cubed, in float16 and
float32, eager and through torch.compile, in turns in one run: medians and ratios. Terrane must be told the same device
(TERRANE_DEVICE, or --bench-options '--device NAME').

  tests/peers/cuda.py --terrane build/release/terrane
  tests/peers/cuda.py --only 'hiera-*' --precision float16 --no-compile"""
import argparse
import fnmatch
import json
import os
import statistics
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
PRODUCTS = ["4096x4096x4096"]
ENCODERS = ["mae-vit-base", "hiera-base", "prithvi-v2-300m"]


def import_torch():
    try:
        import torch
    except ImportError:
        sys.exit("cuda.py: this Python has no PyTorch: install one that is built for CUDA")
    if not torch.cuda.is_available():
        sys.exit(f"cuda.py: PyTorch {torch.__version__} sees no CUDA device; tests/peers/peers.sh compares on the processor")
    return torch


def median_seconds(torch, run, runs):
    """Of single runs, each waited for, as terrane bench does it; the first two are not counted."""
    seconds = []
    for i in range(runs + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if i >= 2:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def event_seconds(torch, run, runs):
    """The same by time stamps on the device, as those of terrane bench --product."""
    seconds = []
    for i in range(runs + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if i >= 2:
            seconds.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(seconds)


def peers_of_product(torch, size, dtype):
    m, k, n = (int(part) for part in size.split("x"))
    x, w = torch.randn(m, k, device="cuda", dtype=dtype), torch.randn(n, k, device="cuda", dtype=dtype)
    return {"cublas": lambda: torch.nn.functional.linear(x, w)}, 2.0 * m * k * n


def peers_of_encoder(torch, name, batch, dtype, compiled):
    import models

    model = models.build(name).eval()
    flops = models.count_flops(model, models.make_image(model, 1)) * batch
    image = models.make_image(model, batch).to("cuda", dtype)
    model = model.to("cuda", dtype)
    runners = {"eager": model}
    if compiled:
        runners["compiled"] = torch.compile(model, mode="max-autotune")

    def make(runner):
        def run():
            with torch.no_grad():
                runner(image)

        return run

    return {how: make(runner) for how, runner in runners.items()}, flops


def terrane_options(options, precision):
    class Options:
        terrane = options.terrane
        bench_options = f"{options.bench_options} --precision {precision}"

    return Options


def measure(torch, peers, options, kind, name, batch, precision):
    dtype = getattr(torch, precision)
    if kind == "product":
        runners, flops = peers_of_product(torch, name, dtype)
        timer = event_seconds
    else:
        runners, flops = peers_of_encoder(torch, name, batch, dtype, options.compile)
        timer = median_seconds
    ours, theirs = [], {how: [] for how in runners}
    for turn in range(options.rounds + 1):  # the first turn warms all and is not counted
        mine = peers.run_terrane(terrane_options(options, precision), kind, name, batch, options.runs)
        times = {how: timer(torch, run, options.runs) for how, run in runners.items()}
        if not turn:
            peers.check_flops(name, mine["flops"], flops)
            continue
        ours.append(mine["seconds"])
        for how, seconds in times.items():
            theirs[how].append(seconds)
    seconds = statistics.median(ours)
    return [{"row": name, "batch": batch, "precision": precision, "peer": how, "device": mine["device"],
             "terrane_seconds": seconds, "peer_seconds": statistics.median(list_),
             "ratio": statistics.median(list_) / seconds, "gflop": flops * 1e-9} for how, list_ in theirs.items()]


def show(result):
    rates = [result["gflop"] / result[who + "_seconds"] for who in ("terrane", "peer")]
    print(f"{result['row']:<18} {result['batch'] or '-':>5} {result['precision']:<8} {result['peer']:<9} "
          f"{result['terrane_seconds'] * 1e3:11.3f} {result['peer_seconds'] * 1e3:11.3f} {result['ratio']:7.2f} "
          f"{rates[0]:10.0f} {rates[1]:10.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terrane", default="build/release/terrane", metavar="COMMAND")
    parser.add_argument("--only", metavar="ROWS", help="products and encoders with commas between; * for anything")
    parser.add_argument("--precision", choices=["float16", "float32"], help="one of both")
    parser.add_argument("--batch", type=int, default=64, help="images at once (64)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side that count (3)")
    parser.add_argument("--runs", type=int, default=10, help="timed runs in a turn (10)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--bench-options", default="", metavar="OPTIONS", help="more options of terrane bench")
    parser.add_argument("--json", action="store_true", help="a JSON object a row instead of the table")
    options = parser.parse_args()
    torch = import_torch()
    import peers

    patterns = (options.only or "*").split(",")
    rows = [("product", size, 0) for size in PRODUCTS] + [("encoder", name, options.batch) for name in ENCODERS]
    rows = [row for row in rows if any(fnmatch.fnmatch(row[1], pattern) for pattern in patterns)]
    if not rows:
        sys.exit(f"cuda.py: --only names none of {', '.join(PRODUCTS + ENCODERS)}")
    options.compile = options.compile and hasattr(torch, "compile")
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
    torch.backends.cudnn.allow_tf32 = False
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}", file=sys.stderr)
    if not options.json:
        print(f"{'row':<18} {'batch':>5} {'':<8} {'peer':<9} {'Terrane, ms':>11} {'peer, ms':>11} {'ratio':>7} "
              f"{'GFLOP/s':>10} {'peer':>10}")
    for kind, name, batch in rows:
        for precision in [options.precision] if options.precision else ["float16", "float32"]:
            for result in measure(torch, peers, options, kind, name, batch, precision):
                print(json.dumps(result), flush=True) if options.json else show(result)


if __name__ == "__main__":
    main()
