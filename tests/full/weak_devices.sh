#!/usr/bin/env bash
# The operator test, the runs in flight and the goldens of one small encoder on the CPU driver made weaker, one
# TERRANE_LIMIT after the other: each passes, or says why the device cannot. And an embedding on a device with little
# memory, which names the batch that fits. Usage: tests/full/weak_devices.sh [build folder] [limits...]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "${1:-build/release}")
shift || true
limits=("$@")
((${#limits[@]})) || limits=(subgroup-control=0 subgroup-operations=0 int64=0 address=0 shared-memory=16K group=128
    storage-range=16M,address=0 memory=256M storage16=0,float16=0)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=0
for limit in "${limits[@]}"; do
    if TERRANE_LIMIT=$limit ctest --test-dir "$build" -R '^graph\.operators$|^models\.models_rcf$|^models\.models_vit$' \
        --output-on-failure >"$work/log" 2>&1; then
        echo "$limit: passed"
    else
        echo "$limit: FAILED"
        grep -E 'FAILED|error' "$work/log" | head -5
        failed=1
    fi
done

cd "$work"
"$build/terrane" synthesize mae-vit-base w.pt -q >/dev/null
gdal_create -q -of GTiff -ot Byte -bands 3 -outsize 896 896 -burn 100 -burn 80 -burn 60 -a_srs EPSG:32633 \
    -a_ullr 500000 5008960 508960 5000000 scene.tif
status=0
TERRANE_LIMIT=memory=256M "$build/terrane" embed scene.tif --model mae-vit-base --weights w.pt --normalize none --tile 224 \
    -q -o out.npy 2>message || status=$?
if ((status == 6)); then
    echo "memory=256M, 330 MiB of weights: refused: $(tail -1 message | head -c 200)"
else
    echo "memory=256M, 330 MiB of weights: exit status $status, not 6: $(tail -1 message)"
    failed=1
fi
exit $failed
