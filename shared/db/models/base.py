"""The base class of all tables, and a table that belongs to none of the others."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, LargeBinary, SmallInteger, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True), bytes: LargeBinary}


class WriteCheck(Base):
    """The row that `GET /readyz` writes, to see whether the server accepts writes (`shared/db/write_check.py`)."""

    __tablename__ = "write_checks"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    checked_at: Mapped[datetime] = mapped_column(server_default=func.now())
