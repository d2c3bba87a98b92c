#!/usr/bin/env bash
# Seconds per image of encoders at batch 1 and 8 (medians of terrane bench), as a table; dates of a series count as one
# image. Usage: tests/full/encoder_times.sh [build folder] [encoder...]. Without names: one of each family and size class.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
shift || true
encoders=("$@")
[ ${#encoders[@]} -gt 0 ] || encoders=(hiera-tiny hiera-small hiera-base hiera-base-plus hiera-large mae-hiera-base
    sam2-hiera-tiny sam2-hiera-base-plus sam2-hiera-large dofa-base dofa-large dofa-v2-base prithvi-v1-100m
    prithvi-v2-tiny-tl prithvi-v2-100m-tl prithvi-v2-300m-tl galileo-nano presto mae-vit-base dinov2-small)

"$build/terrane" devices | head -3
printf '\n%-24s %14s %14s %10s\n' encoder 's/image, 1' 's/image, 8' 'GFLOP, 1'
for encoder in "${encoders[@]}"; do
    seconds=()
    for batch in 1 8; do
        result=$("$build/terrane" bench --model "$encoder" --batch "$batch" --runs 3 --json -q)
        seconds+=("$(jq -r '.seconds_median / .batch' <<<"$result")")
        [ "$batch" = 1 ] && gflop=$(jq -r .gflop <<<"$result")
    done
    printf '%-24s %14.4f %14.4f %10.1f\n' "$encoder" "${seconds[@]}" "$gflop"
done
