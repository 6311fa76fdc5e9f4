"""Searches a user's own prompts by their words.

`prompt_words` has a tsvector of each prompt and its answer. It is derived, and follows the user's feed as vectors do:
a search first adds what was completed since the last one. So finishing a prompt costs nothing here, and neither does a
user who never searches by words.

Each lexeme begins with the user's id. So a word's entry in the GIN index has only this user's prompts, and a search
takes as long as if there were no other users.

The rank is that of BM25 (Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"), by
the presence of words. The inverse document frequency is squared, as in the cosine of two tf-idf vectors: an identifier
is rare, and must count for more than all common words of a long question. Words that no prompt has count nothing: they
cannot tell prompts apart, and a question may have many of them. `b` is 0.4, as
in Trotman et al. (2014, "Improvements to BM25 and Language Models Examined"). PostgreSQL's `ts_rank_cd` does not know
how rare a word is.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine

from shared.db.prepared import PreparedStatement
from shared.search.words.lexemes import queries
from shared.search.words.word_writer import WordWriter

#: How many prompts a search ranks; the most that a request may ask for is less.
MAX_MATCHES = 100
#: How many prompts are read of each word. If there are more, the word is common, and how common is only estimated.
MAX_PROMPTS_OF_WORD = MAX_MATCHES
#: How often a search catches up with a growing feed before it answers with what it has.
MAX_CATCH_UPS = 8


class WordMatch(NamedTuple):
    """A prompt that has some of a query's words."""

    prompt_id: int
    score: float  #: higher is better; comparable only within one search
    #: How much of the query it has, from 0 to 1: of the words that any prompt has, weighted as in the score.
    share: float


# The words are looked up one by one, which shows how rare each is, and all together, which finds the best prompts of
# common words. The best of what was found is then compared with all words.
_SEARCH = PreparedStatement(
    "word_search",
    f"""
    WITH state AS MATERIALIZED (
        SELECT users.seq AS newest, coalesce(word_index.seq, 0) AS indexed
        FROM users LEFT JOIN word_index ON word_index.user_id = users.id WHERE users.id = :user_id
    ), asked AS MATERIALIZED (
        SELECT CAST(query AS tsquery) AS query, number FROM unnest(:queries) WITH ORDINALITY AS given(query, number)
    ), probed AS MATERIALIZED (
        SELECT number, prompt_id, count(*) OVER (PARTITION BY number) AS found
        FROM asked CROSS JOIN LATERAL (
            SELECT prompt_id FROM prompt_words
            WHERE words @@ query AND (:allowed IS NULL OR prompt_id IN (SELECT unnest(:allowed)))
            LIMIT {MAX_PROMPTS_OF_WORD + 1}
        ) AS hit
    ), counted AS (
        SELECT number, CASE WHEN found <= {MAX_PROMPTS_OF_WORD} THEN found ELSE sqrt(found * newest) END AS prompts
        FROM (SELECT number, max(found) AS found FROM probed GROUP BY number) AS each CROSS JOIN state
    ), weighted AS MATERIALIZED (
        SELECT number, query, power(ln(1 + greatest(0, newest - prompts + 0.5) / (prompts + 0.5)), 2) AS weight
        FROM asked JOIN counted USING (number) CROSS JOIN state
    ), best AS MATERIALIZED (
        SELECT prompt_id FROM probed JOIN weighted USING (number)
        GROUP BY prompt_id ORDER BY bool_or(number = :together) DESC, sum(weight) DESC, prompt_id DESC
        LIMIT {MAX_MATCHES}
    ), compared AS (
        SELECT prompt_id, length(words) AS size, (
            SELECT sum(weight) FROM weighted WHERE number <> :together AND prompt_words.words @@ query
        ) AS weight
        FROM best JOIN prompt_words USING (prompt_id)
    )
    SELECT newest, indexed, prompt_id, weight * 2.2 / (1 + 1.2 * (0.6 + 0.4 * size / avg(size) OVER ())) AS score,
        weight / (SELECT sum(weight) FROM weighted WHERE number <> :together) AS share
    FROM state LEFT JOIN compared ON true
    ORDER BY score DESC NULLS LAST, prompt_id DESC
    """,  # noqa: S608  # nosec B608
    {"user_id": "bigint", "queries": "text[]", "together": "bigint", "allowed": "bigint[]"},
    # The plan is made once, perhaps while the table is empty. Then a scan of all rows by the primary key looks cheap;
    # a bitmap scan can only be one of the words.
    first="SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off;",
)


class WordIndex:
    """Searches a user's prompts by their words, in Postgres.

    Args:
        autocommit_engine: An engine in autocommit, for queries of one statement.
    """

    def __init__(self, writer: WordWriter, autocommit_engine: Engine) -> None:
        self._writer = writer
        self._autocommit_engine = autocommit_engine

    def search(self, user_id: int, query: str, *, allowed: Sequence[int] | None = None) -> list[WordMatch]:
        """Find the at most MAX_MATCHES best of the user's completed prompts that have a word of the query, best first.

        Args:
            allowed: The prompts to search in; all of the user's if None.
        """
        words = queries(user_id, query)
        if not words:
            return []
        parameters = {
            "user_id": user_id,
            "queries": [*words, " & ".join(words)],
            "together": len(words) + 1,
            "allowed": None if allowed is None else list(allowed),
        }
        expected = 0
        for _ in range(MAX_CATCH_UPS):
            with self._autocommit_engine.connect() as connection:
                rows = _SEARCH(connection, parameters)
            if not rows:  # the user does not exist
                break
            expected = expected or rows[0].newest  # what is completed during this search may wait for the next one
            if rows[0].indexed >= expected:
                break
            self._writer.catch_up(user_id)
        return [WordMatch(row.prompt_id, row.score, row.share) for row in rows if row.prompt_id is not None]
