#!/bin/sh
# The pipeline of README.md on made-up chest X-rays, in a fresh temporary folder: data, a classifier, its heatmaps,
# masks, and how well they find what is there, beside two floors and a second reader. Under 4 minutes on 2 cores.
set -eu
cd "$(mktemp -d)"
echo "in $PWD" >&2

# Data with the truth about them, and a classifier
chex-phantom -o xrays --count 1000 --size 256 256 > phantoms.jsonl
chex-train xrays/train.csv --valid xrays/valid.csv -o RUN --arch resnet18 --size 160 --epochs 6 --lr 1e-3 \
    --channels-last > log.jsonl
chex-predict xrays/test.csv --checkpoint RUN/best.pt | chex-eval --metric auroc > classifier.jsonl

# Where it looks, and where maps look that know nothing of the image
truth=xrays/gt_annotations_test.json
for method in "gradcam --layer layer3" random centre; do
    name=${method%% *}
    chex-cam xrays/test.csv --checkpoint RUN/best.pt --method $method -o maps/$name | chex-segment |
        chex-eval --truth $truth --metric iou --metric hit --per-image $name.cxrs.jsonl > $name.jsonl
done

# How well a second reader finds it, and how far below the classifier stays
chex-segment xrays/hb_annotations_test.json |
    chex-eval --human --truth $truth --metric iou --per-image reader.iou.jsonl > reader.jsonl
chex-eval xrays/hb_points_test.json --human --truth $truth --per-image reader.hit.jsonl >> reader.jsonl
for metric in iou hit; do
    chex-compare gradcam.cxrs.jsonl reader.$metric.jsonl --metric $metric
done > decrease.jsonl

chex-report classifier.jsonl gradcam.jsonl random.jsonl centre.jsonl reader.jsonl --human-run reader \
    -o page.html --by task --format table
