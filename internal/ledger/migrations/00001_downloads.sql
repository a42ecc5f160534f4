-- +goose Up

-- Times are nanoseconds since 1970 in UTC, 0 for none; sizes are bytes; lists are JSON.
CREATE TABLE downloads (
    id               TEXT    NOT NULL PRIMARY KEY,
    model_scheme     TEXT    NOT NULL,
    model_name       TEXT    NOT NULL,
    revision         TEXT    NOT NULL,
    include          TEXT    NOT NULL,
    exclude          TEXT    NOT NULL,
    priority         INTEGER NOT NULL,
    bytes_per_second BIGINT  NOT NULL,
    connections      INTEGER NOT NULL,
    max_retries      INTEGER NOT NULL,
    state            TEXT    NOT NULL,
    pause            TEXT    NOT NULL,
    reason           TEXT    NOT NULL,
    class            TEXT    NOT NULL,
    next_try         BIGINT  NOT NULL,
    retries          INTEGER NOT NULL,
    tries            INTEGER NOT NULL,
    commit_id        TEXT    NOT NULL,
    path             TEXT    NOT NULL,
    size             BIGINT  NOT NULL,
    done             BIGINT  NOT NULL,
    arrival          BIGINT  NOT NULL,
    created          BIGINT  NOT NULL,
    started          BIGINT  NOT NULL,
    ended            BIGINT  NOT NULL
);

CREATE INDEX downloads_by_state ON downloads (state, ended);
CREATE INDEX downloads_by_model ON downloads (model_name, model_scheme);
CREATE INDEX downloads_by_arrival ON downloads (arrival);

-- +goose Down
DROP TABLE downloads;
