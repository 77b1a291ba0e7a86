"""Build the application and launch it: `python app.py`, here or on a Hugging Face Space."""

import argparse
import os
import signal
import sys
from pathlib import Path

# Before gradio is imported: it would look up addresses of its own on other servers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

MAX_PORT = 65535
HERE = Path(__file__).resolve().parent


def parse_port(text: str) -> int:
    """A port from the command line or the environment; exits with one line where it is none."""
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_PORT):
        sys.exit(f"app.py: --port (or GRADIO_SERVER_PORT): got {text}; needed 0 (a free one) to {MAX_PORT}")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Skin analysis: train and use one network for skin, hair and lesions.")
    # A Space sets these two variables.
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen on"
    )
    # Out of the environment: gradio stops with a traceback on import where it is no number.
    parser.add_argument("--port", default=os.environ.pop("GRADIO_SERVER_PORT", "7860"), help="0: a free one")
    parser.add_argument(
        "--data-root", type=Path, default=HERE / "data", help="the folder whose folders can be trained on"
    )
    parser.add_argument("--runs-dir", type=Path, default=HERE / "runs", help="where runs are kept")
    parser.add_argument("--checkpoint", type=Path, help="the model to start with; unset: checkpoints/default")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    args = parser.parse_args()
    port = parse_port(args.port)

    from mtl.checkpoint import read_checkpoint
    from mtl.errors import MtlError
    from mtl.ui.app import AppSettings, build_app
    from mtl.ui.launch import launch

    checkpoint = args.checkpoint or HERE / "checkpoints" / "default"
    temporary = Path(named) if (named := os.environ.get("GRADIO_TEMP_DIR")) else None
    settings = AppSettings(args.data_root, args.runs_dir, checkpoint, HERE / "assets" / "examples", temporary)
    # As when it is interrupted: visitors' photos are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # One that was named is wanted, so it is told now; without the shipped one the page can still train.
        if args.checkpoint is not None:
            read_checkpoint(args.checkpoint)
        launch(build_app(settings), args.host, port, open_browser=args.open)
    except MtlError as error:
        sys.exit(f"app.py: {error}")


if __name__ == "__main__":
    main()
