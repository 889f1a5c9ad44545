"""What training takes: devices for a time, and the money for them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

BUDGET_SPENT = "budget spent"  # how a study stands that ended for that reason, with trials left
TIME_BUDGET = "the time budget is spent"  # why one of its trials was stopped
SMALL_GAIN = "further trials would bring too little"  # why no more are opened; those that run end


class Held(BaseModel):
    """What a lane holds while it trains a trial, and what that costs."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    gpus: float = 0.0
    cpus: float = 0.0
    hourly: float = 0.0
    """Money for an hour of all of it; 0 where nobody gave a price."""
    currency: str = ""

    def cost(self, seconds: float) -> Cost:
        """Return what so long costs."""
        return Cost(
            gpu_seconds=self.gpus * seconds,
            cpu_seconds=self.cpus * seconds,
            money=self.hourly * seconds / 3600,
            currency=self.currency,
        )


class Cost(BaseModel):
    """What was held, for how long, and the money for it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    money: float = 0.0
    currency: str = ""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            money=self.money + other.money,
            currency=other.currency or self.currency,
        )

    def __str__(self) -> str:
        hours = self.gpu_seconds / 3600, "GPU-h"
        hours = hours if self.gpu_seconds else (self.cpu_seconds / 3600, "CPU-h")
        money = f", {self.money:.2f} {self.currency}" if self.currency else ""
        return f"{hours[0]:.3g} {hours[1]}{money}"
