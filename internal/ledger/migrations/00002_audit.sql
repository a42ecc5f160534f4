-- +goose Up

-- Who changed what. Times are nanoseconds since 1970 in UTC; the number orders entries of the same moment.
CREATE TABLE audit (
    number     BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    who        TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    target     TEXT   NOT NULL,
    result     TEXT   NOT NULL,
    request_id TEXT   NOT NULL,
    remote     TEXT   NOT NULL
);

CREATE INDEX audit_by_time ON audit (at, number);

-- +goose Down
DROP TABLE audit;
