"""Changes of settings: what is asked is laid over what is set, and refused or journaled whole."""

import msgspec

from tenure.master.core.command import UpdateSettings
from tenure.master.core.effect import Decision
from tenure.master.core.event import SettingsChanged
from tenure.master.core.settings import SettingsKind, refuse
from tenure.master.core.state import State
from tenure.protocol.limits import SETTINGS_MAX
from tenure.protocol.refusal import Reason, Refusal


def decide_update(state: State, command: UpdateSettings, now_ms: int) -> Decision | Refusal:
    """Changes what the command names; nothing is journaled if that is what is set already."""
    settings, kind = command.settings, SettingsKind(type(command.settings))
    entry = state.settings.get(kind, command.key)
    if command.fields:
        known = type(settings)() if entry is None else entry.value
        changes = {field: getattr(settings, field) for field in command.fields}
        settings = msgspec.structs.replace(known, **changes)
    refusal = refuse(settings)
    if refusal is not None:
        return refusal
    if entry is None and len(state.settings) >= SETTINGS_MAX:
        return Refusal(
            reason=Reason.MEMORY_FULL,
            message=f"expected to set up {'/'.join(command.key)}, but {SETTINGS_MAX} queues, "
            "tenants and job types of the partition have settings of their own, and there is no "
            "room for more",
            metadata={"key": "/".join(command.key), "limit": str(SETTINGS_MAX)},
        )
    if entry is not None and entry.value == settings:
        return Decision(reply=settings)
    event = SettingsChanged(now_ms=now_ms, key=command.key, settings=settings)
    return Decision(events=(event,), reply=settings)


def apply_settings_changed(state: State, event: SettingsChanged, seq: int) -> None:
    """Sets the settings."""
    if state.settings.put(event.key, event.settings, seq) and state.live:
        state.settings_changed(SettingsKind(type(event.settings)), event.key)
