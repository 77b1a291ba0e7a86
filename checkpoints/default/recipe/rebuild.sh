#!/bin/sh
# Makes the shipped model anew, from the top of the repository: sh checkpoints/default/recipe/rebuild.sh DATA FOLDER [SEED]
# DATA: photos that say which are for validation (splits.json), since the trainings have different seeds; FOLDER: a new one.
set -eu
{ [ $# = 2 ] || [ $# = 3 ]; } && [ ! -e "$2" ] ||
	{ echo "usage: sh rebuild.sh DATA FOLDER [SEED]; FOLDER must not be there yet" >&2; exit 1; }
data=$1 out=$2 seed=${3:-0} recipe=$(dirname "$0")
mtl() { verb=$1; shift; python -m mtl "$verb" --data-dir "$data" "$@"; }

mtl train --config "$recipe/first.json" --seed "$seed" --output-dir "$out" --name first
for more in 10 20 30; do
	mtl train --config "$recipe/second.json" --seed $((seed + more)) --init "$out"/*-first --output-dir "$out" --name "second-$more"
done
mtl average "$out"/*-second-* --output "$out/seconds"
mtl average "$out/seconds" "$out/seconds" "$out"/*-first --output "$out/mean" # the first counts a third
python -m mtl export --format safetensors --dtype float16 --checkpoint "$out/mean" --output "$out/default"
mtl evaluate --checkpoint "$out/default" --save
