"""The account's money: held at create, taken on completion, released on failure (gateway.md, "Answers"). Pure.

Amounts are integer micro-dollars, so that no sum ever rounds.
"""

from __future__ import annotations

from decimal import Decimal

__all__ = ["Account", "NotEnough"]


class NotEnough(Exception):
    """The account cannot hold this amount: the gateway's 402."""


class Account:
    """A prepaid account.

    Args:
        balance: micro-dollars that can be spent.

    Attributes:
        balance: micro-dollars that can be spent; what is held is not in it.
        frozen: micro-dollars held for running tasks.
        taken: micro-dollars billed so far.
    """

    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.frozen = 0
        self.taken = 0

    def hold(self, amount: int) -> None:
        """Moves `amount` from the balance to what is held.

        Raises:
            NotEnough: the balance is smaller; nothing moved.
        """
        if amount > self.balance:
            raise NotEnough(f"{usd(amount)} USD are needed, {usd(self.balance)} USD are there")
        self.balance -= amount
        self.frozen += amount

    def take(self, amount: int) -> None:
        """Bills what was held."""
        self.frozen -= amount
        self.taken += amount

    def release(self, amount: int) -> None:
        """Gives back what was held."""
        self.frozen -= amount
        self.balance += amount


def usd(micro: int) -> str:
    """Micro-dollars as USD, such as `0.3165`."""
    return format((Decimal(micro) / 1_000_000).normalize(), "f")
