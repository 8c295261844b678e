"""A gateway on loopback that makes real clips and real trouble, for the demo and for tests.

Light to import: `prefect_kling.simulator.server` brings the server, `prefect_kling.simulator.app` the application.
"""

from __future__ import annotations

from prefect_kling.simulator.child import SimulatorFailed, simulator_child
from prefect_kling.simulator.config import MediaSpec, SimulatorConfig

__all__ = ["MediaSpec", "SimulatorConfig", "SimulatorFailed", "simulator_child"]
