#!/bin/sh
# Makes the shipped model anew, from the top of the repository: sh checkpoints/default/recipe/rebuild.sh DATA FOLDER
# DATA: photos that say which are for validation (splits.json), since the trainings have different seeds; FOLDER: a new one.
set -eu
[ $# = 2 ] && [ ! -e "$2" ] || { echo "usage: sh rebuild.sh DATA FOLDER; FOLDER must not be there yet" >&2; exit 1; }
data=$1 out=$2 recipe=$(dirname "$0")
mtl() { verb=$1; shift; python -m mtl "$verb" --data-dir "$data" "$@"; }

mtl train --config "$recipe/first.json" --output-dir "$out" --name first
mtl train --config "$recipe/second.json" --output-dir "$out" --name second --init "$out"/*-first
mtl average "$out"/*-first "$out"/*-second --output "$out/mean"
mtl train --config "$recipe/third.json" --output-dir "$out" --name third --init "$out/mean"
mtl average "$out"/*-third "$out/mean" --output "$out/mean-2"
python -m mtl export --format safetensors --dtype float16 --checkpoint "$out/mean-2" --output "$out/default"
mtl evaluate --checkpoint "$out/default" --save
