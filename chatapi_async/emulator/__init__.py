"""A local server of the service, with a small deterministic model: for demos, for trying things out, and for tests.

::

    from chatapi_async.emulator import Emulator, serve_in_thread

    with serve_in_thread(Emulator(chatrooms=["ch_demo"])) as running:
        print(running.base_url)

It misbehaves on request, so that a program can be tried against a stream that goes wrong: a request for the model
``fault/truncate?after=3`` gets an answer that breaks off. ``FAULTS`` has every such fault. With
``Emulator(replies="replies.toml")`` it answers as the rules in that file say.

A real model can answer in the place of the built-in one: ``Emulator(upstream=Upstream("http://localhost:11434/v1"))``.

It needs the extra ``emulator``: ``pip install 'chatapi-async[emulator]'``.
"""

_NEEDED = ("sse_starlette", "starlette", "uvicorn")

try:
    from ._app import Emulator
    from ._asgi import ReceivedRequest
    from ._faults import FAULTS, ChosenFault, Fault, choose_fault
    from ._reply_document import replies_schema
    from ._reply_reading import ReplyFileError
    from ._scripted import ScriptedAnswer
    from ._server import RunningEmulator, run, serve, serve_in_thread
    from ._upstream import Upstream
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in _NEEDED:
        raise
    raise ImportError(
        f"the emulator needs {missing}, which is not installed; run: pip install 'chatapi-async[emulator]'"
    ) from error

__all__ = [
    "FAULTS",
    "ChosenFault",
    "Emulator",
    "Fault",
    "ReceivedRequest",
    "ReplyFileError",
    "RunningEmulator",
    "ScriptedAnswer",
    "Upstream",
    "choose_fault",
    "replies_schema",
    "run",
    "serve",
    "serve_in_thread",
]
