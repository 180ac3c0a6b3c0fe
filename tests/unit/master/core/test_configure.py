"""Changes of settings: how many there may be."""

from tenure.master.core.command import UpdateSettings
from tenure.master.core.settings import QueueSettings, TenantSettings
from tenure.protocol.limits import SETTINGS_MAX
from tenure.protocol.refusal import Reason
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig


def test_room_for_settings_ends() -> None:
    """Beyond the limit of entries none is added, and those that are there still change."""
    rig = Rig()
    settings = state_of(rig.partition).settings
    for number in range(SETTINGS_MAX):
        settings.put((f"t{number}",), TenantSettings(paused=True), 1)
    change = UpdateSettings(key=("acme", "mail"), settings=QueueSettings(weight=2.0))
    refusal = rig.refused(change)
    assert refusal.reason is Reason.MEMORY_FULL
    assert "to set up acme/mail, but" in refusal.message
    assert refusal.metadata == {"key": "acme/mail", "limit": str(SETTINGS_MAX)}
    known = UpdateSettings(key=("t0",), settings=TenantSettings(weight=2.0))
    assert rig.do(known).reply == TenantSettings(weight=2.0)
