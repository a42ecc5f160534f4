-- +goose Up

-- Which models are used, by the hour and by how it was noticed. Times are nanoseconds since 1970 in UTC; an hour is told
-- by its beginning. Sums are of the uses that it has: bytes, and microseconds of those whose duration is known.
CREATE TABLE uses (
    model_scheme TEXT   NOT NULL,
    model_name   TEXT   NOT NULL,
    hour         BIGINT NOT NULL,
    source       TEXT   NOT NULL,
    times        BIGINT NOT NULL,
    failures     BIGINT NOT NULL,
    timed        BIGINT NOT NULL,
    duration_us  BIGINT NOT NULL,
    bytes        BIGINT NOT NULL,
    last_used    BIGINT NOT NULL,
    PRIMARY KEY (model_name, model_scheme, hour, source)
);

CREATE INDEX uses_by_hour ON uses (hour);

-- Models that never leave by themselves.
CREATE TABLE pins (
    model_scheme TEXT   NOT NULL,
    model_name   TEXT   NOT NULL,
    pinned       BIGINT NOT NULL,
    PRIMARY KEY (model_name, model_scheme)
);

-- Moves between tiers: asked for, begun and ended at these times, 0 for not yet.
CREATE TABLE moves (
    model_scheme TEXT    NOT NULL,
    model_name   TEXT    NOT NULL,
    asked        BIGINT  NOT NULL,
    from_tier    TEXT    NOT NULL,
    to_tier      TEXT    NOT NULL,
    by_hand      INTEGER NOT NULL,
    why          TEXT    NOT NULL,
    began        BIGINT  NOT NULL,
    ended        BIGINT  NOT NULL,
    bytes        BIGINT  NOT NULL,
    result       TEXT    NOT NULL,
    error        TEXT    NOT NULL,
    PRIMARY KEY (model_name, model_scheme, asked)
);

CREATE INDEX moves_by_end ON moves (ended, asked);

-- +goose Down
DROP TABLE moves;
DROP TABLE pins;
DROP TABLE uses;
