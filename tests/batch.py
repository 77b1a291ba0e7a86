"""What many photos through the page cost in time, memory and files: `python -m tests.batch --photos 200`.

Photos of a folder, or made ones; a real server and a real Chromium. Memory is the server's resident set.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import psutil
from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from browser import CHROMIUM, FLAGS, App

from mtl.data.demo import write_demo_data

KEPT_S = 360  # how long a closed page's photos may stay, with what the sweep takes
PATIENCE_MS = 30 * 60_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="photos to take, again and again; unset: made ones")
    parser.add_argument("--rounds", type=int, default=2, help="how often: the second shows what stays of the first")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["TMPDIR"] = place
        print(json.dumps(measure(Path(place), args.folder, args.photos, args.rounds), indent=2))


def measure(place: Path, folder: Path | None, count: int, rounds: int) -> dict[str, object]:
    """Seconds a photo, megabytes and files before, with all answers, and after the page is closed."""
    photos = _photos(place, folder, count)
    app = App(place)
    server = psutil.Process(app.process.pid)
    result: dict[str, object] = {"photos": count, "before": _state(server, place)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for number in range(1, rounds + 1):
            page = browser.new_page()
            page.goto(app.url)
            page.wait_for_selector("#mtl-examples img")
            start = time.monotonic()
            page.set_input_files("#mtl-upload input[type=file]", photos)
            expect(page.locator("#mtl-strip button.done")).to_have_count(count, timeout=PATIENCE_MS)
            result[f"round {number}, seconds a photo"] = round((time.monotonic() - start) / count, 3)
            result[f"round {number}, all answered"] = _state(server, place)
            page.close()
        browser.close()
    time.sleep(KEPT_S)
    result[f"{KEPT_S} s after the page was closed"] = _state(server, place)
    app.close()
    return result


def _photos(place: Path, folder: Path | None, count: int) -> list[Path]:
    """Links under names of their own: gradio would take equal names for one file."""
    source = folder or write_demo_data(place / "photos", min(count, 60)) / "images" / "train"
    (place / "links").mkdir()
    links = []
    for number, photo in enumerate(islice(cycle(sorted(p for p in source.iterdir() if p.is_file())), count)):
        links.append(place / "links" / f"{number:03}{photo.suffix}")
        links[-1].symlink_to(photo.resolve())
    return links


def _state(server: psutil.Process, place: Path) -> dict[str, float]:
    files = [file for file in (place / "gradio").rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return {"memory_mb": round(server.memory_info().rss / 1e6), "files": len(files), "files_mb": round(size / 1e6, 1)}


if __name__ == "__main__":
    main()
