"""Build the application and launch it: `python app.py`, here or on a Hugging Face Space."""

import logging
import os
import signal
import sys
from pathlib import Path

from mtl.errors import MtlError
from mtl.hub.tokens import install_secret_filter

# Before gradio is imported: it would look up addresses of its own on other servers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

HERE = Path(__file__).resolve().parent


def main() -> None:
    logging.basicConfig(format="%(message)s")
    install_secret_filter()
    # As when it is interrupted: visitors' photos are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve()
    except MtlError as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit("app.py: stopped")


def serve() -> None:
    """Until it is interrupted. Raises MtlError where it cannot start."""
    from mtl.ui.options import read_options

    options = read_options(sys.argv[1:], os.environ, HERE)
    if options.place.zero_gpu:
        import spaces  # type: ignore[import-not-found] # noqa: F401 - before anything asks for CUDA, which it replaces

    from mtl.ui.app import AppSettings, build_app, make_shelf
    from mtl.ui.launch import launch, load_analysis

    settings = AppSettings(
        options.data_root,
        options.runs_dir,
        options.checkpoint,
        HERE / "assets" / "examples",
        temporary=options.temporary,
        place=options.place,
        checkpoints_dir=options.checkpoints_dir,
    )
    shelf = make_shelf(settings)
    if options.place.zero_gpu:
        # It wants to see before the launch what will ask for its GPU.
        shelf.get(shelf.first)
    demo = build_app(settings, shelf)
    launch(
        demo,
        options.host,
        options.port,
        place=options.place,
        models=shelf,
        auth=options.auth,
        allow_anyone=options.allow_anyone,
        allowed_hosts=options.allowed_hosts,
        open_browser=options.open_browser,
        block=False,
    )
    load_analysis()
    demo.block_thread()


if __name__ == "__main__":
    main()
