"""What training takes: devices for a time, and the money for them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

BUDGET_SPENT = "budget spent"  # how a study stands that ended for that reason, with trials left
TIME_BUDGET = "the time budget is spent"  # why one of its trials was stopped
JOULES_PER_KWH = 3.6e6
SMALL_GAIN = "further trials would bring too little"  # why no more are opened; those that run end


class Held(BaseModel):
    """What a lane holds while it trains a trial, and what that costs."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    gpus: float = 0.0
    cpus: float = 0.0
    hourly: float = 0.0
    """Money for an hour of all of it; 0 where nobody gave a price."""
    currency: str = ""

    def cost(self, seconds: float, joules: float = 0.0, ranks: int = 1) -> Cost:
        """Return what so long costs, whose ranks' GPUs drew so much, of which it held a share."""
        return Cost(
            gpu_seconds=self.gpus * seconds,
            cpu_seconds=self.cpus * seconds,
            energy_kwh=joules / JOULES_PER_KWH * min(1.0, self.gpus / ranks),
            money=self.hourly * seconds / 3600,
            currency=self.currency,
        )


class Cost(BaseModel):
    """What was held, for how long, and the money for it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_kwh: float = 0.0
    """That the GPUs drew, where NVML counts it; else 0."""
    money: float = 0.0
    currency: str = ""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            energy_kwh=self.energy_kwh + other.energy_kwh,
            money=self.money + other.money,
            currency=other.currency or self.currency,
        )

    def __str__(self) -> str:
        hours = self.gpu_seconds / 3600, "GPU-h"
        hours = hours if self.gpu_seconds else (self.cpu_seconds / 3600, "CPU-h")
        money = f", {self.money:.2f} {self.currency}" if self.currency else ""
        energy = f", {self.energy_kwh:.3g} kWh" if self.energy_kwh else ""
        return f"{hours[0]:.3g} {hours[1]}{energy}{money}"
