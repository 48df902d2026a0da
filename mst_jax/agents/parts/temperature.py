"""Settings of the entropy temperature, of agents with a maximum-entropy policy."""

from dataclasses import dataclass

from mst_jax.agents.parts.modules import require


@dataclass
class TemperatureConfig:
    """The entropy temperature of SAC and MR.SAC.

    Attributes:
        initial: its first value.
        learning_rate: Adam's, on its logarithm, without decay.
        target_entropy_per_action: the entropy aimed at is this times the action size.
    """

    initial: float = 0.01
    learning_rate: float = 1e-4
    target_entropy_per_action: float = -0.5

    def target_entropy(self, action_size: int) -> float:
        """The entropy that the temperature aims at: -|A| / 2 by default."""
        return self.target_entropy_per_action * action_size

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name in ("initial", "learning_rate"):
            value = getattr(self, name)
            require(value > 0, f"temperature.{name}={value} must be positive")
