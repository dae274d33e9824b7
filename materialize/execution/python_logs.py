"""Lines of loggers that the settings name become events of the run, beside those of `context.log`."""

import contextlib
import copy
import logging
import logging.config
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

from headwater.catalog.config import resolve
from headwater.catalog.errors import ConfigError
from headwater.catalog.settings import HandlerConfig, PythonLogs

_STEP: ContextVar[str | None] = ContextVar("headwater step", default=None)

#: Takes a step, a level and a message.
Log = Callable[[str | None, str, str], None]


@contextlib.contextmanager
def logged_by(step: str) -> Generator[None]:
    """What is logged in this context is a step's."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)


@contextlib.contextmanager
def python_logging(settings: PythonLogs, log: Log, redact: Callable[[str], str]) -> Generator[None]:
    """For the length of a run, hand the lines of managed loggers to `log` and to the handlers of the settings.

    Raises `ConfigError` for handlers that cannot be made.
    """
    handler = _ManagedHandler(log, redact, _handlers(settings.dagster_handler_config))
    handler.setLevel(level_of(settings))
    loggers = [logging.getLogger(name) for name in settings.managed_python_loggers]
    levels = [one.level for one in loggers]
    for one in loggers:
        if settings.python_log_level is not None:
            one.setLevel(settings.python_log_level)
        one.addHandler(handler)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.removeHandler(handler)
            one.setLevel(level)
        for one in handler.others:
            one.close()


def level_of(settings: PythonLogs) -> int:
    """The number of the lowest level that is kept."""
    return logging.getLevelNamesMapping()[settings.python_log_level or "NOTSET"]


class _ManagedHandler(logging.Handler):
    def __init__(self, log: Log, redact: Callable[[str], str], others: list[logging.Handler]) -> None:
        super().__init__()
        self._log = log
        self._redact = redact
        self.others = others

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info:
                message = f"{message}\n{logging.Formatter().formatException(record.exc_info)}"
            self._log(_STEP.get(), record.levelname, message)
            if self.others:
                shown = copy.copy(record)
                shown.msg, shown.args = self._redact(message), None
                shown.exc_info = shown.exc_text = None  # it is part of the message, without secrets
                for one in self.others:
                    if shown.levelno >= one.level:
                        one.handle(shown)
        except Exception:  # logging's own rule: a bad format string never harms the program
            self.handleError(record)


def _handlers(config: HandlerConfig) -> list[logging.Handler]:
    """The handlers of a `dictConfig`, made without touching what is set up already."""
    if not config.handlers:
        return []
    path = "python_logs:dagster_handler_config"
    parts: dict[str, Any] = {
        "formatters": config.formatters,
        "filters": config.filters,
        "handlers": config.handlers,
    }
    parts = resolve(parts, path)
    maker: Any = logging.config.DictConfigurator({"version": 1, **parts})
    try:
        for part, make in (
            ("formatters", maker.configure_formatter),
            ("filters", maker.configure_filter),
            ("handlers", maker.configure_handler),
        ):
            for name in parts[part]:
                maker.config[part][name] = make(maker.config[part][name])
    except (ValueError, TypeError, AttributeError, ImportError, KeyError, OSError) as error:
        raise ConfigError(
            f"{path}: the handlers cannot be made: {error}.",
            remedy="They are written as for logging.config.dictConfig.",
        ) from None
    return list(maker.config["handlers"].values())
