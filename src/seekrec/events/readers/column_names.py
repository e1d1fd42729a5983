# SPDX-License-Identifier: Apache-2.0
"""Common names for the columns of our schema in shops' tables, and common words for behaviors.

Names are compared without case and separators: `userId`, `User ID` and `USER_ID` are equal. The groups of each role
are ordered by strength; names in one group are equally strong.
"""

from __future__ import annotations

from collections.abc import Sequence

from seekrec.util.actions import plain_name

Groups = tuple[tuple[str, ...], ...]

_ITEM_IDS = (
    *("item", "sku", "skuid", "productid", "product", "asin", "parentasin", "articleid", "article", "movieid"),
    *("videoid", "trackid", "songid", "artistid", "bookid", "isbn", "noteid", "newsid", "docid", "documentid"),
    *("businessid", "listingid", "offerid", "goodsid", "contentid", "postid", "productcode", "itemcode", "adid"),
    *("hotelid", "recipeid", "courseid", "jobid", "gameid", "venueid", "placeid", "ean", "gtin", "upc"),
)

EVENT_NAMES: dict[str, Groups] = {
    "user_id": (
        ("userid",),
        (
            *("user", "uid", "customerid", "customer", "visitorid", "visitor", "memberid", "member", "clientid"),
            *("client", "accountid", "account", "buyerid", "shopperid", "reviewerid", "profileid", "personid"),
            *("subscriberid", "listenerid", "viewerid", "readerid", "fullvisitorid", "userpseudoid"),
        ),
        ("deviceid", "cookieid", "cookie", "anonymousid", "browserid"),
    ),
    "item_id": (("itemid",), _ITEM_IDS),
    # Two clocks in one table are common, and the name does not say which is meant: all are equally strong.
    "timestamp": (
        (
            *("timestamp", "ts", "time", "eventtime", "eventts", "eventtimestamp", "eventdate", "eventdatetime"),
            *("datetime", "date", "createdat", "created", "createtime", "unixtime", "unixtimestamp", "epoch"),
            *("unixreviewtime", "reviewtime", "ratingtime", "occurredat", "loggedat", "clickedat", "viewedat"),
            *("purchasedat", "orderdate", "ordertime", "visittime", "clicktime", "timems", "timestampms"),
            *("timestampus", "servertime", "clienttime", "requesttime", "dateadded", "addedat"),
        ),
        ("day", "dt", "updatedat", "dateupdated", "insertedat", "receivedat", "ingestedat", "loadedat", "processedat"),
    ),
    "query": (
        ("query",),
        (
            *("searchquery", "searchterm", "searchterms", "searchtext", "searchphrase", "searchstring", "searchword"),
            *("searchwords", "searchkeyword", "searchkeywords", "querytext", "querystring", "q", "keyword"),
            *("keywords", "term", "terms"),
        ),
        ("search", "phrase"),
    ),
    "behavior": (("behavior",),),
    "action": (
        ("action",),
        (
            *("event", "eventtype", "eventname", "eventaction", "actiontype", "interaction", "interactiontype"),
            *("activity", "activitytype", "behaviortype", "behaviourtype", "behavior", "behaviour", "feedbacktype"),
            *("useraction", "type"),
        ),
        ("clicked", "isclicked", "isclick", "click"),
    ),
    "session_id": (
        ("sessionid",),
        ("session", "usersession", "visitid", "visit", "gasessionid"),
        ("requestid", "searchid", "impressionid", "pageviewid"),
    ),
    "geohash": (("geohash",),),
}

ITEM_NAMES: dict[str, Groups] = {
    "item_id": (("itemid",), _ITEM_IDS, ("id",)),
    "title": (
        ("title",),
        (
            *(
                "productname",
                "prodname",
                "producttitle",
                "itemname",
                "itemtitle",
                "articletitle",
                "movietitle",
                "songtitle",
            ),
            *("booktitle", "newstitle", "headline", "displayname"),
        ),
        ("name",),
        ("label", "shorttitle", "heading"),
    ),
    "description": (
        ("description",),
        ("desc", "detaildesc", "productdescription", "itemdescription", "longdescription", "abstract", "summary"),
        ("shortdescription", "overview", "body", "content", "text"),
    ),
    "categories": (
        ("categories",),
        (
            *("category", "categorypath", "categoryname", "categorynames", "genres", "genre", "productcategory"),
            *("categorycode", "productcategories", "breadcrumb", "breadcrumbs", "taxonomy", "categorytree"),
        ),
        ("maincategory", "producttype", "producttypename", "department", "topic", "topics", "section"),
    ),
    "available_from": (("availablefrom",),),
    "available_until": (("availableuntil",),),
}

# Text that stands for an item without title: joined in this order.
TEXT_NAMES = (
    *("brand", "brandname", "manufacturer", "artist", "artistname", "author", "authors", "publisher", "tags"),
    *("keywords", "color", "colour"),
)

# The second step of a path whose first is the column of categories.
SUBCATEGORY_NAMES = ("subcategory", "subcat", "categorysub", "subcategoryname")

BEHAVIOR_OF_WORD = {
    "search": "search",
    "recommendation": "recommendation",
    "recommendations": "recommendation",
    "recommend": "recommendation",
    "reco": "recommendation",
    "rec": "recommendation",
}


def find_named(names: Sequence[str], groups: Groups) -> list[list[str]]:
    """Return for each group the columns that have one of its names, in the order of the table."""
    return [[name for name in names if plain_name(name) in group] for group in groups]


def is_flag_name(name: str) -> bool:
    """Return whether a column of this name says of each item shown whether it was clicked."""
    return plain_name(name) in EVENT_NAMES["action"][-1]


def count_known(names: Sequence[str]) -> int:
    """Count the names that columns of ours may have."""
    return sum(plain_name(name) in _KNOWN for name in names)


_KNOWN = {
    name for roles in (EVENT_NAMES, ITEM_NAMES) for groups in roles.values() for group in groups for name in group
}

__all__ = [
    "BEHAVIOR_OF_WORD",
    "EVENT_NAMES",
    "ITEM_NAMES",
    "SUBCATEGORY_NAMES",
    "TEXT_NAMES",
    "count_known",
    "find_named",
    "is_flag_name",
]
