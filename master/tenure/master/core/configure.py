"""Changes of settings: what is asked is laid over what is set, and refused or journaled whole."""

import msgspec

from tenure.master.core.command import UpdateSettings
from tenure.master.core.effect import Decision
from tenure.master.core.event import SettingsChanged
from tenure.master.core.settings import AnySettings, QueueSettings, SettingsKind, refuse
from tenure.master.core.state import State
from tenure.protocol.limits import SETTINGS_MAX
from tenure.protocol.refusal import Reason, Refusal


def decide_update(state: State, command: UpdateSettings, now_ms: int) -> Decision | Refusal:
    """Changes what the command names; nothing is journaled if that is what is set already."""
    settings, kind = command.settings, SettingsKind(type(command.settings))
    entry = state.settings.get(kind, command.key)
    if command.fields or command.override_keys:
        settings = _laid_over(type(settings)() if entry is None else entry.value, command)
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


def _laid_over(known: AnySettings, command: UpdateSettings) -> AnySettings:
    """What is set with what a command names: decided here, two at once lose nothing."""
    new = command.settings
    changes = {field: getattr(new, field) for field in command.fields}
    if isinstance(known, QueueSettings) and isinstance(new, QueueSettings):
        keys = frozenset(command.override_keys)
        if keys and "key_breaker_overrides" not in changes:
            overrides = [row for row in known.key_breaker_overrides if row.limit_key not in keys]
            overrides += [row for row in new.key_breaker_overrides if row.limit_key in keys]
            overrides.sort(key=lambda row: row.limit_key)
            changes["key_breaker_overrides"] = tuple(overrides)
    return msgspec.structs.replace(known, **changes)


def apply_settings_changed(state: State, event: SettingsChanged, seq: int) -> None:
    """Sets the settings."""
    if state.settings.put(event.key, event.settings, seq) and state.live:
        state.settings_changed(SettingsKind(type(event.settings)), event.key)
