"""The log of the state folder that the settings name, for the verbs that read it beside the running appliance."""

from __future__ import annotations

from appliance.log_location import find_log
from appliance.settings import read_settings
from appliance.state.layout import StateLayout
from audit.location import LogLocation


def own_log() -> LogLocation:
    """Return where it is, as whoever only reads reaches it.

    Raises:
        SettingsRefused, StateUnusable: the settings and the state name different places.
    """
    settings = read_settings()
    return find_log(settings, StateLayout(settings.state_dir.resolve())).reader
