#!/usr/bin/env bash
# Embeddings in float16 against those in float32, as a table: the smallest and the mean cosine over all vectors, weights and
# working memory of both. Real images and a real scene of ../shared/data; the weights of galileo-nano and presto are the
# published ones (../shared/weights), the others are made up. Fails below 0.999. TERRANE_DISABLE=lanes,uniform makes a CPU
# driver take the kernels of GPUs. Usage: tests/full/precision.sh [build folder] [encoder...]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
shift || true
shared=${TERRANE_SHARED:-../shared}
encoders=("$@")
[ ${#encoders[@]} -gt 0 ] || encoders=(rcf galileo-nano presto prithvi-v1-100m dofa-base mae-vit-base dinov2-small
    hiera-tiny sam2-hiera-tiny)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/images"
for class in AnnualCrop Forest River SeaLake; do
    for file in $(find "$shared/data/eurosat-rgb/$class" -name '*.jpg' | sort | head -2); do cp "$file" "$work/images"; done
done
pictures=("$work/images" --sensor rgb)
scene=("$shared/data/scenes-sentinel2/patch_25630.tif" --sensor sentinel2-l2a)

# what an encoder sees, and its settings
arguments() {
    case $1 in
    rcf) input=("${scene[@]}" -c features=128) ;;
    galileo-* | prithvi-*) input=("${scene[@]}") ;;
    presto) input=("${pictures[@]}" --scale 0.0010784 --resize 16) ;; # every pixel is a sequence
    *) input=("${pictures[@]}" --resize "$2") ;;
    esac
}

cosines() {
    python3 - "$@" <<'PYTHON'
import array, ast, math, struct, sys

def load(path):
    data = open(path, "rb").read()
    length = struct.unpack("<H", data[8:10])[0]
    header = ast.literal_eval(data[10:10 + length].decode())
    values = array.array("f")
    values.frombytes(data[10 + length:])
    return values, header["shape"][-1]

(a, width), (b, _) = load(sys.argv[1]), load(sys.argv[2])
found = []
for i in range(0, len(a), width):
    x, y = a[i:i + width], b[i:i + width]
    if any(v != v for v in x):
        continue
    norms = math.sqrt(math.fsum(v * v for v in x) * math.fsum(v * v for v in y))
    found.append(math.fsum(p * q for p, q in zip(x, y)) / norms if norms > 0 else float(list(x) == list(y)))
print(len(found), "%.6f %.6f" % (min(found), math.fsum(found) / len(found)))
PYTHON
}

failed=0
"$build/terrane" devices | head -3
printf '\n%-18s %-8s %8s %10s %10s %22s %22s\n' encoder weights vectors 'smallest' mean 'weights 32 / 16' 'values 32 / 16'
for encoder in "${encoders[@]}"; do
    size=224
    case $encoder in sam2-*) size=256 ;; esac
    arguments "$encoder" "$size"
    from="made up"
    case $encoder in
    rcf) weights=() from=none ;;
    galileo-nano) weights=(--weights "$shared/weights/galileo-nano/encoder.pt") from=real ;;
    presto) weights=(--weights "$shared/weights/presto/default_model.pt") from=real ;;
    *)
        "$build/terrane" synthesize "$encoder" "$work/$encoder.safetensors" -q
        weights=(--weights "$work/$encoder.safetensors")
        ;;
    esac
    memory=()
    for precision in float32 float16; do
        command=("$build/terrane" embed "${input[@]}" --model "$encoder" "${weights[@]}" --precision "$precision"
            -o "$work/$precision.npy" -q)
        memory+=("$("${command[@]}" --explain 2>/dev/null |
            sed -n 's/^batch .*weights \(.*\), working memory \(.*\)$/\1;\2/p')")
        "${command[@]}"
    done
    read -r vectors least mean < <(cosines "$work/float32.npy" "$work/float16.npy")
    printf '%-18s %-8s %8d %10s %10s %22s %22s\n' "$encoder" "$from" "$vectors" "$least" "$mean" \
        "${memory[0]%;*} / ${memory[1]%;*}" "${memory[0]#*;} / ${memory[1]#*;}"
    awk -v least="$least" 'BEGIN { exit !(least >= 0.999) }' || failed=1
    rm -f "$work"/*.npy "$work/$encoder.safetensors"
done
exit $failed
