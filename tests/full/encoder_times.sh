#!/usr/bin/env bash
# Seconds per image of encoders at batch 1 and 8 (medians of terrane bench), as a table; dates of a series count as one
# image. Usage: tests/full/encoder_times.sh [build folder] [encoder...]. Without names: one of each family and size class.
# RUNS (3) timed runs each.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
shift || true
encoders=("$@")
[ ${#encoders[@]} -gt 0 ] || encoders=(hiera-tiny hiera-small hiera-base hiera-base-plus hiera-large mae-hiera-base
    sam2-hiera-tiny sam2-hiera-base-plus sam2-hiera-large dofa-base dofa-large dofa-v2-base prithvi-v1-100m
    prithvi-v2-tiny-tl prithvi-v2-100m-tl prithvi-v2-300m-tl galileo-nano presto mae-vit-base dinov2-small)

"$build/terrane" devices | head -3
printf '\n%-24s %14s %14s %10s %10s\n' encoder 's/image, 1' 's/image, 8' 'GFLOP, 1' 'of peak, 8'
for encoder in "${encoders[@]}"; do
    "$build/terrane" bench --only encoders --model "$encoder" --batch 1,8 --runs "${RUNS:-3}" --json -q |
        jq -r '.entries as [$one, $eight] | [$one.model, $one.seconds_per_image, $eight.seconds_per_image, $one.gflop,
            $eight.fraction * 100] | @tsv' |
        while IFS=$'\t' read -r model one eight gflop fraction; do
            printf '%-24s %14.4f %14.4f %10.1f %8.0f %%\n' "$model" "$one" "$eight" "$gflop" "$fraction"
        done
done
