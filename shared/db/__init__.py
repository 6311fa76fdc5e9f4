"""PostgreSQL: connections, tables, migrations."""
