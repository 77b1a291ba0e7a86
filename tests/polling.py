"""What one look at a long run costs, and whether an hour of looking grows the server: `python -m tests.polling`.

A run with 50,000 logged steps; then 3,600 polls of a real server, as a page's timer sends them, with a new step
between each two.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from mtl.config import TrainConfig
from mtl.training.run import Run
from mtl.ui.curves import CurveReader
from mtl.ui.tabs.train.run import Seen, refresh
from mtl.ui.watch import LATEST, RunWatch

ROOT = Path(__file__).parent.parent
STEPS_AN_EPOCH = 500
WARM_UP = 0.1  # share of the polls before the memory is first measured: caches and pools fill


def step_line(step: int) -> str:
    """A line of metrics.jsonl with all that a step logs."""
    noise = (step * 7919 % 1000) / 1e4
    parts = ("encoder", "classification_head", "segmentation_head")
    return json.dumps(
        {"event": "step", "step": step, "epoch": step // STEPS_AN_EPOCH + 1, "epochs_done": step / STEPS_AN_EPOCH}
        | {"photos": 16, "loss": 2 / (1 + step / 5000) + noise, "classification_loss": 1.5, "segmentation_loss": 0.5}
        | {f"gradient_norm_{part}": 0.5 + noise for part in parts}
        | {"lr": 0.001}
    )


def epoch_line(epoch: int) -> str:
    losses = {"val_loss": 1 / epoch, "val_classification_loss": 0.7 / epoch, "val_segmentation_loss": 0.3 / epoch}
    scores = {"val_dice": 0.8, "val_jaccard": 0.7, "val_accuracy": 0.6, "val_balanced_accuracy": 0.5}
    return json.dumps({"event": "epoch", "epoch": epoch, "step": epoch * STEPS_AN_EPOCH, **losses, **scores})


def write_long_run(runs_dir: Path, steps: int) -> Run:
    """A run that this process seems to train, with that many steps behind it."""
    run = Run.create(TrainConfig(output_dir=str(runs_dir), name="long", epochs=1000))
    run.claim(epochs=1000)
    run.update(state="training", step=steps, steps=10 * steps, epoch=steps // STEPS_AN_EPOCH)
    lines = [step_line(step) for step in range(1, steps + 1)]
    lines += [epoch_line(epoch) for epoch in range(1, steps // STEPS_AN_EPOCH + 1)]
    run.metrics_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return run


def add_step(run: Run, step: int) -> None:
    with run.metrics_file.open("a", encoding="utf-8") as lines:
        lines.write(step_line(step) + "\n")


def measure_looks(run: Run, steps: int) -> None:
    """Print what the first look, one without news and one after a new step take, in milliseconds."""
    watch, reader, seen = RunWatch(run.path.parent), CurveReader(), Seen()

    def look() -> None:
        nonlocal seen
        watch.forget()
        seen = refresh(watch, reader, LATEST, seen, None, None)[-1]

    print(f"first look at {steps:,} steps        {milliseconds(look):8.1f} ms")
    look()
    print(f"a look without news              {min(milliseconds(look) for _ in range(20)):8.1f} ms")
    news = []
    for step in range(steps + 1, steps + 21):
        add_step(run, step)
        news.append(milliseconds(look))
    print(f"a look after one new step        {sorted(news)[10]:8.1f} ms (median of 20, largest {max(news):.1f})")


def milliseconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


class Visitor:
    """A page without a browser: sends what the page's timer sends."""

    def __init__(self, url: str):
        self._client = httpx.Client(base_url=url, timeout=60)
        config = self._client.get("/config").json()
        timers = {component["id"] for component in config["components"] if component["type"] == "timer"}
        ticks = [
            dependency
            for dependency in config["dependencies"]
            if any(target[0] in timers and target[1] == "tick" for target in dependency["targets"])
        ]
        # The one with the plots.
        self._tick = max(ticks, key=lambda dependency: len(dependency["outputs"]))
        self._session = "visitor"

    def poll(self) -> int:
        """One tick; the length of the answer."""
        data: list[Any] = [LATEST, *[None] * (len(self._tick["inputs"]) - 1)]
        event = {"data": data, "fn_index": self._tick["id"], "session_hash": self._session, "event_data": None}
        self._client.post("/gradio_api/queue/join", json=event).raise_for_status()
        answer = self._client.get("/gradio_api/queue/data", params={"session_hash": self._session}).text
        assert '"success":true' in answer.replace(" ", ""), answer[-500:]
        return len(answer)


def measure_server(runs_dir: Path, run: Run, steps: int, polls: int) -> None:
    """Print how the memory of a server stands before and after that many polls."""
    command = [sys.executable, "app.py", "--port", "0", "--runs-dir", str(runs_dir), "--data-root", str(runs_dir)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the server did not start"
        visitor, process = Visitor(found.group()), psutil.Process(server.pid)
        sizes, times = [], []
        for number in range(polls):
            add_step(run, steps + 1 + number)
            times.append(milliseconds(visitor.poll))
            if (number >= WARM_UP * polls and number % max(1, polls // 10) == 0) or number == polls - 1:
                sizes.append(process.memory_info().rss / 1e6)
        print(f"{polls:,} polls of a server: {sorted(times)[polls // 2]:.0f} ms each (median)")
        print("its memory in MB: " + ", ".join(f"{size:.1f}" for size in sizes))
        print(f"grown by {sizes[-1] - sizes[0]:.1f} MB")
    finally:
        server.terminate()
        server.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--polls", type=int, default=3_600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_long_run(Path(folder), args.steps)
        measure_looks(run, args.steps)
        measure_server(Path(folder), run, args.steps + 20, args.polls)


if __name__ == "__main__":
    main()
