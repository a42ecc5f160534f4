-- +goose Up

-- History is of models, which it names by short numbers: there may be ten million uses of a thousand models. Times are
-- nanoseconds since 1970 in UTC, durations microseconds, sizes bytes; 0 is a duration or a size that nobody has told.
CREATE TABLE models (
    number       BIGINT NOT NULL PRIMARY KEY,
    model_scheme TEXT   NOT NULL,
    model_name   TEXT   NOT NULL,
    UNIQUE (model_name, model_scheme)
);

-- Each use, for as long as history is kept; sums by the hour are in uses, and by the day here below.
CREATE TABLE model_usage (
    model_id    BIGINT  NOT NULL,
    timestamp   BIGINT  NOT NULL,
    source      TEXT    NOT NULL,
    operation   TEXT    NOT NULL,
    duration_us BIGINT  NOT NULL,
    bytes       BIGINT  NOT NULL,
    success     INTEGER NOT NULL
);

-- The sums of a day in UTC, told by its number since 1970. quarters has them by the quarter of an hour, which is what all
-- time zones have in common, in the form of days.go.
CREATE TABLE usage_days (
    model_id    BIGINT NOT NULL,
    day         BIGINT NOT NULL,
    times       BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    timed       BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    last_used   BIGINT NOT NULL,
    quarters    BYTEA  NOT NULL,
    PRIMARY KEY (model_id, day)
);

-- Each check of a model. Scores are from 0 to 1; -1 is one that nobody knows.
CREATE TABLE model_health (
    model_id          BIGINT           NOT NULL,
    last_check        BIGINT           NOT NULL,
    check_type        TEXT             NOT NULL,
    commit_id         TEXT             NOT NULL,
    overall           TEXT             NOT NULL,
    health_score      DOUBLE PRECISION NOT NULL,
    integrity_score   DOUBLE PRECISION NOT NULL,
    performance_score DOUBLE PRECISION NOT NULL,
    files             BIGINT           NOT NULL,
    bytes             BIGINT           NOT NULL,
    duration_us       BIGINT           NOT NULL,
    issues            TEXT             NOT NULL
);

-- Measured figures. A step of 0 is a sample as it was taken; else the sums of so many seconds.
CREATE TABLE series (
    number BIGINT NOT NULL PRIMARY KEY,
    name   TEXT   NOT NULL UNIQUE
);

CREATE TABLE samples (
    series BIGINT           NOT NULL,
    step   BIGINT           NOT NULL,
    at     BIGINT           NOT NULL,
    times  BIGINT           NOT NULL,
    total  DOUBLE PRECISION NOT NULL,
    least  DOUBLE PRECISION NOT NULL,
    most   DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (series, step, at)
);

-- What happened that people may want to know later: damage, repairs, updates, alerts. model_id is 0 where it concerns none.
CREATE TABLE events (
    at       BIGINT NOT NULL,
    kind     TEXT   NOT NULL,
    severity TEXT   NOT NULL,
    model_id BIGINT NOT NULL,
    message  TEXT   NOT NULL
);

-- Batches that were written: one whose answer was lost is not written twice.
CREATE TABLE batches (
    id TEXT   NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE batches;
DROP TABLE events;
DROP TABLE samples;
DROP TABLE series;
DROP TABLE model_health;
DROP TABLE usage_days;
DROP TABLE model_usage;
DROP TABLE models;
