"""A database environment whose SQL state forks: two repairs of the same table, side by side.

python examples/database.py
"""

import sqlite3
from contextlib import closing

import agentenv as ae


class Database(ae.ToolEnv):
    """Change a database until a query returns what it should."""

    max_steps = 10

    class Task(ae.Task):
        """What is there, what is wanted, and how to see whether it holds."""

        setup: str
        request: str
        check: str  # a query
        expected: list[list[str | int | None]]

    class State(ae.State):
        """The database, as the SQL that makes it: equal databases are equal states, and a fork is a copy of text."""

        sql: str = ""

    def start(self, task: Task) -> str:
        """Sets the database up."""
        self.state.sql = task.setup
        return task.request

    @ae.tool
    def query(self, sql: str) -> str:
        """Run one SQL statement; returns its rows."""
        try:
            return str(self.execute(sql)[:20])
        except sqlite3.Error as error:
            raise ae.ToolError(str(error)) from error

    @ae.tool
    def done(self) -> str:
        """Say that the database is as requested."""
        right = self.execute(self.task.check) == self.task.expected
        return self.finish("checked", reward=float(right))

    def execute(self, sql: str) -> list[list[str | int | None]]:
        """Runs a statement on the state; what it changes is the new state."""
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(self.state.sql)
            rows = [list(row) for row in connection.execute(sql)]
            self.state.sql = "\n".join(connection.iterdump())
            return rows


TASK = Database.Task(
    setup="CREATE TABLE staff (name TEXT, pay INTEGER); INSERT INTO staff VALUES ('Ada', 10), ('Alan', 20), ('Al', 5);",
    request="Give everybody whose name begins with 'Al' 10 more. The table is staff(name, pay).",
    check="SELECT name, pay FROM staff ORDER BY name",
    expected=[["Ada", 10], ["Al", 15], ["Alan", 30]],
)


CHANGE = "UPDATE staff SET pay = pay + 10 WHERE "


def call(tool: str, **arguments: str) -> ae.Action:
    """Makes an action of one call."""
    return ae.Action(tool_calls=(ae.ToolCall(tool, arguments),))


def main() -> None:
    """Takes a wrong and a right way from the same moment."""
    env = Database(tasks=[TASK])
    env.reset(seed=0)
    for fork, where in zip(env.fork(2), ("name = 'Al'", "name LIKE 'Al%'"), strict=True):
        fork.step(call("query", sql=CHANGE + where))
        print(f"WHERE {where}: reward {fork.step(call('done'))[1]:g}")
    print("the original still says", env.execute("SELECT sum(pay) FROM staff")[0][0])


if __name__ == "__main__":
    main()
