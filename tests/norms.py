"""`python -m tests.norms`: what it changes that each process normalises by its own photos. Two minutes of made photos.

The same training by one process, by two, and by one that cuts each batch into two parts, which is what two do to it.
"""

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from builders import write_folder
from processes import in_processes
from test_training import epochs_of
from tiny import tiny_config

from mtl.config import TrainConfig
from mtl.training.fit import train
from mtl.training.run import Run


def train_quietly(config: TrainConfig) -> Path:
    logging.disable(logging.WARNING)
    return train(config).path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = write_folder(Path(folder) / "skin", train=60, val=30)
        for batch_size in (4, 16):
            config = tiny_config(data, batch_size=batch_size, epochs=4, dropout=0.0, init="lite0", cache_dir="off")
            parts = config.replace(batch_size=batch_size // 2, accumulate=2)
            tell(f"batches of {batch_size}, one process", in_processes(1, train_quietly, config)[0])
            tell(f"batches of {batch_size}, two processes", in_processes(2, train_quietly, config)[0])
            tell(f"batches of {batch_size}, in two parts", in_processes(1, train_quietly, parts)[0])


def tell(name: str, path: Path) -> None:
    losses = [f"{epoch['train_loss']:.3f}/{epoch['val_loss']:.3f}" for epoch in epochs_of(Run(path))]
    print(f"{name:30} training/validation loss {'  '.join(losses)}", flush=True)


if __name__ == "__main__":
    main()
