"""When a CronJob is due: the schedule, its time zone, and times that have been missed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lateen.kit import cron


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        ("*/5 * * * *", "2026-03-01T10:02:30", "2026-03-01T10:05:00"),
        ("0 0 1 1 *", "2026-03-01T10:00:00", "2027-01-01T00:00:00"),
        ("30 4 * * mon-fri", "2026-02-27T05:00:00", "2026-03-02T04:30:00"),
        ("0 12 13 * FRI", "2026-03-01T00:00:00", "2026-03-06T12:00:00"),  # either day
        ("0 12 13 * *", "2026-03-01T00:00:00", "2026-03-13T12:00:00"),
        ("15-45/15 8,20 * jan,dec ?", "2026-11-05T00:00:00", "2026-12-01T08:15:00"),
        ("10/20 * * * *", "2026-03-01T10:11:00", "2026-03-01T10:30:00"),
        ("@daily", "2026-12-31T23:59:59", "2027-01-01T00:00:00"),
        ("@every 90s", "2026-03-01T10:00:00", "2026-03-01T10:01:30"),
        ("0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 31 2 *", "2026-03-01T00:00:00", None),
    ],
)
def test_the_next_time_of_a_schedule(schedule, now, due):
    found = cron.parse(schedule).after(at(now))
    assert found == (at(due) if due else None)


@pytest.mark.parametrize(
    ("zone", "now", "due"),
    [
        ("Europe/Berlin", "2026-01-10T00:00:00", "2026-01-10T01:30:00"),
        ("Europe/Berlin", "2026-07-10T00:00:00", "2026-07-10T00:30:00"),
        ("Europe/Berlin", "2026-03-29T00:00:00", "2026-03-30T00:30:00"),  # 02:30 is skipped that night
        ("Asia/Kolkata", "2026-01-10T00:00:00", "2026-01-10T21:00:00"),
    ],
)
def test_a_schedule_is_read_in_its_time_zone(zone, now, due):
    assert cron.parse("30 2 * * *").after(at(now), cron.zone(zone)) == at(due)


def test_a_repeated_hour_has_one_start():
    schedule, zone = cron.parse("30 2 * * *"), cron.zone("Europe/Berlin")
    first = schedule.after(at("2026-10-24T12:00:00"), zone)
    assert schedule.after(first, zone).date().isoformat() == "2026-10-26"


@pytest.mark.parametrize(
    "text",
    [
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "@never",
        "@every 0s",
        "1,,2 * * * *",
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        cron.parse(text)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Local"])
def test_a_zone_that_does_not_exist_is_refused(name):
    with pytest.raises(ValueError, match="unknown time zone"):
        cron.zone(name)


def test_only_the_last_of_many_missed_times_counts():
    schedule = cron.parse("* * * * *")
    assert schedule.latest(at("2020-01-01T00:00:00"), at("2026-01-01T00:00:30")) == (at("2026-01-01T00:00:00"), True)
    monthly = cron.parse("0 0 1 * *")
    assert monthly.latest(at("2026-01-15T00:00:00"), at("2026-02-20T00:00:00")) == (at("2026-02-01T00:00:00"), False)
    assert monthly.latest(at("2026-02-02T00:00:00"), at("2026-02-20T00:00:00")) == (None, False)


@given(
    st.integers(1_704_067_200, 1_893_456_000),
    st.sampled_from(["*/7 3-9 * * *", "0 0 * * 0", "5 4 1,15 * *"]),
)
def test_the_last_time_is_the_one_before_the_next(seconds, text):
    schedule, now = cron.parse(text), datetime.fromtimestamp(seconds, UTC)
    found, _ = schedule.latest(at("2023-01-01T00:00:00"), now)
    assert found <= now
    assert schedule.after(found) > now
