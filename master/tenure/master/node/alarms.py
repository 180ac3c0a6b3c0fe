"""What an operator should look at: each alarm is logged when it begins and when it is over."""

import logging

_log = logging.getLogger(__name__)


class Alarms:
    """The alarms of one master, by name."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def texts(self) -> list[str]:
        """What stands now, one sentence each, by name."""
        return [self._texts[name] for name in sorted(self._texts)]

    def judge(self, name: str, text: str | None) -> None:
        """Raises an alarm, or ends it.

        Args:
            name: Which; also the log's ``alarm``.
            text: What is wrong now and what to do; None: nothing.
        """
        stood = name in self._texts
        if text is None:
            if stood:
                del self._texts[name]
                _log.info("Over: the alarm %s", name, extra={"action": "alarm_over", "alarm": name})
            return
        # What it says may change by the second, as a distance does.
        self._texts[name] = text
        if not stood:
            _log.warning("Alarm: %s", text, extra={"action": "alarm", "alarm": name})
