"""Own logs as shops have them: each kind lacks something, and has names of its own for its columns."""

import csv
import datetime
import random

AISLES = ("garden tools", "kitchen knives", "office paper")
ITEMS_PER_AISLE = 12
WORDS = ("garden", "kitchen", "office", "tools", "knives", "paper")

# What each kind of log has. `days`: dates without hours; `order`: no times at all.
KINDS = {
    "all of it": {"searches", "categories", "text", "impressions", "visits", "lifetimes"},
    "bought on days": {"text", "days"},
    "categories alone": {"categories", "text"},
    "ids alone": {"impressions", "visits"},
    "searches of an order": {"searches", "text", "order"},
}


def write_own_log(folder, kind, num_users=30, seed=0):
    """Write `orders.csv` and, where items have anything, `products.csv`; return the options that name them."""
    has = KINDS[kind]
    rng = random.Random(seed)
    rows = []
    for user in range(num_users):
        aisle, start = user % len(AISLES), rng.randrange(ITEMS_PER_AISLE)
        for step in range(6):
            item = aisle * ITEMS_PER_AISLE + (start + step) % ITEMS_PER_AISLE
            moment = datetime.datetime(2024, 1, 1 + step, 10 + user % 8, rng.randrange(60))
            row = {"customer": f"c{user}", "sku": f"p{item}", "event_type": "click"}
            if "order" not in has:
                row["time"] = moment.date().isoformat() if "days" in has else moment.isoformat()
            if "searches" in has:
                row["search_term"] = AISLES[aisle] if step % 2 else ""
            if "visits" in has:
                row["visit"] = f"{user}-{step // 2}"
            if "impressions" in has and step == 3:
                shown = {**row, "sku": f"p{(item + 5) % (len(AISLES) * ITEMS_PER_AISLE)}", "event_type": "impression"}
                rows.append(shown)
            rows.append(row)
    write(folder / "orders.csv", rows)
    options = ["--events", folder / "orders.csv"]
    if "text" in has or "categories" in has:
        items = []
        for number in range(len(AISLES) * ITEMS_PER_AISLE):
            aisle = AISLES[number // ITEMS_PER_AISLE]
            item = {"sku": f"p{number}", "name": f"{aisle} number {number}"}
            if "categories" in has:
                item["category"] = f"Store > {aisle}"
            if "lifetimes" in has:
                item["available_from"] = "" if number else "2001-01-01"
            items.append(item)
        write(folder / "products.csv", items)
        options += ["--items", folder / "products.csv"]
    return [*map(str, options), *(["--has_time", "false"] if "order" in has else [])]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
