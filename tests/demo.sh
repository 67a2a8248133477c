#!/bin/sh
# The pipeline of README.md on made-up data, in a fresh temporary folder: heatmaps of eight X-rays, and what
# radiologists outlined on them.
set -eu
data=$(cd "$(dirname "$0")/data/oracle-small" && pwd)
cd "$(mktemp -d)"
echo "in $PWD" >&2
ln -s "$data/maps" maps
ln -s "$data/gt_annotations.json" "$data/gt_points.json" .

chex-segment gt_annotations.json > truth.jsonl
chex-segment maps > masks.jsonl
chex-eval masks.jsonl --truth truth.jsonl > model.jsonl
chex-eval gt_points.json --human --truth truth.jsonl > human.jsonl
chex-eval masks.jsonl --truth truth.jsonl --metric iou --metric hit --format table
