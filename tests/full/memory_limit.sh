#!/usr/bin/env bash
# A checkpoint larger than half of what the process may hold (ulimit -v) loads and gives the same embedding; one larger
# than the whole is refused in words. Usage: tests/full/memory_limit.sh [build folder] [encoder...]; on the CPU driver,
# whose memory is the process's. Needs gdal_create.
set -euo pipefail
cd "$(dirname "$0")/../.."
terrane=$(realpath "${1:-build/release}")/terrane
shift || true
encoders=("$@")
((${#encoders[@]})) || encoders=(mae-vit-large mae-vit-huge)
share=60 # per cent of the limit that the checkpoint has
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
gdal_create -q -of GTiff -ot Byte -bands 3 -outsize 224 224 -burn 100 -burn 80 -burn 60 -a_srs EPSG:32633 \
    -a_ullr 500000 5002240 502240 5000000 scene.tif

embed() { # limit in KiB, output
    (
        ulimit -v "$1"
        "$terrane" embed scene.tif --model "$encoder" --weights w.pt --normalize none --tile 224 --overlap 0 -q -o "$2"
    )
}

failed=0
for encoder in "${encoders[@]}"; do
    "$terrane" synthesize "$encoder" w.pt -q >/dev/null
    size=$(($(stat -c %s w.pt) / 1024))
    limit=$((size * 100 / share))
    embed unlimited free.npy
    if embed "$limit" limited.npy && cmp -s free.npy limited.npy; then
        echo "$encoder: $((size / 1024)) MiB of weights load under ulimit -v $limit ($((limit / 1024)) MiB)"
    else
        echo "$encoder: $((size / 1024)) MiB of weights do NOT load under ulimit -v $limit ($((limit / 1024)) MiB)"
        failed=1
    fi
    status=0
    embed "$((size - 1))" limited.npy 2>message || status=$?
    if ((status == 6)); then
        echo "$encoder: refused under $(((size - 1) / 1024)) MiB: $(head -c 160 message)"
    else
        echo "$encoder: exit status $status, not 6, under $(((size - 1) / 1024)) MiB: $(tail -1 message)"
        failed=1
    fi
    rm -f w.pt ./*.npy ./*.json
done
exit $failed
