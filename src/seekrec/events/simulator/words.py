# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the simulated shop: names of its products, and how people type them.

This module is only data. A *leaf* is the last category of a path; its noun, the synonym that some people type instead,
and its names in Chinese and Arabic are columns of one table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Leaf:
    """One category of things.

    Args:
        department (`str`): First level of its path.
        aisle (`str`): Second level.
        noun (`str`): What its things are called.
        synonym (`str`): Another word for them, which no title holds.
        chinese (`str`): The same in Chinese.
        arabic (`str`): The same in Arabic.
    """

    department: str
    aisle: str
    noun: str
    synonym: str
    chinese: str
    arabic: str

    @property
    def path(self) -> list[str]:
        """Names from the root down."""
        return [self.department, self.aisle, self.noun.capitalize()]


# By department and aisle: noun / synonym / Chinese / Arabic.
_SHELVES = """
Home: Lighting
    lamp / light / 台灯 / مصباح
    lantern / storm light / 灯笼 / فانوس
    candle / taper / 蜡烛 / شمعة
Home: Textiles
    rug / carpet / 地毯 / سجادة
    curtain / drape / 窗帘 / ستارة
    cushion / throw pillow / 靠垫 / وسادة
Home: Furniture
    sofa / couch / 沙发 / أريكة
    armchair / easy chair / 扶手椅 / كرسي بذراعين
    bookcase / bookshelf / 书柜 / خزانة كتب
Kitchen: Cookware
    frying pan / skillet / 煎锅 / مقلاة
    saucepan / cooking pot / 汤锅 / قدر
    casserole / dutch oven / 砂锅 / طاجن
Kitchen: Tableware
    mug / cup / 马克杯 / كوب
    plate / dish / 盘子 / طبق
    drinking glass / tumbler / 玻璃杯 / كأس
Kitchen: Appliances
    kettle / water boiler / 水壶 / غلاية
    toaster / bread crisper / 烤面包机 / محمصة
    blender / mixer / 搅拌机 / خلاط
Clothing: Tops
    sweater / jumper / 毛衣 / سترة صوفية
    shirt / blouse / 衬衫 / قميص
    jacket / blazer / 夹克 / جاكيت
Clothing: Bottoms
    trousers / pants / 长裤 / بنطال
    jeans / denims / 牛仔裤 / جينز
    skirt / kilt / 裙子 / تنورة
Clothing: Shoes
    sneakers / trainers / 运动鞋 / حذاء رياضي
    sandals / flip flops / 凉鞋 / صندل
    boots / wellies / 靴子 / جزمة
Electronics: Audio
    headphones / earphones / 耳机 / سماعة رأس
    speaker / loudspeaker / 音箱 / مكبر صوت
    microphone / mic / 麦克风 / ميكروفون
Electronics: Computers
    laptop / notebook computer / 笔记本电脑 / حاسوب محمول
    keyboard / typing pad / 键盘 / لوحة مفاتيح
    monitor / screen / 显示器 / شاشة
Electronics: Power
    charger / power adapter / 充电器 / شاحن
    power bank / portable battery / 充电宝 / بطارية متنقلة
    phone case / phone cover / 手机壳 / غطاء هاتف
Sports: Fitness
    dumbbell / hand weight / 哑铃 / دمبل
    yoga mat / exercise mat / 瑜伽垫 / سجادة يوغا
    skipping rope / jump rope / 跳绳 / حبل قفز
Sports: Cycling
    bicycle / bike / 自行车 / دراجة
    helmet / hard hat / 头盔 / خوذة
    cycle lock / padlock / 车锁 / قفل دراجة
Sports: Camping
    tent / shelter / 帐篷 / خيمة
    sleeping bag / bedroll / 睡袋 / كيس نوم
    backpack / rucksack / 背包 / حقيبة ظهر
Garden: Plants
    flower pot / planter / 花盆 / أصيص
    seeds / seed packet / 种子 / بذور
    fern / house plant / 蕨类 / سرخس
Garden: Tools
    spade / shovel / 铲子 / مجرفة
    rake / leaf comb / 耙子 / مدمة
    hose / water pipe / 水管 / خرطوم
Garden: Terrace
    barbecue / grill / 烧烤架 / شواية
    hammock / hanging bed / 吊床 / أرجوحة
    parasol / sunshade / 遮阳伞 / مظلة
Toys: Building
    building blocks / bricks / 积木 / مكعبات
    train set / toy railway / 玩具火车 / قطار لعبة
    puzzle / jigsaw / 拼图 / أحجية
Toys: Dolls
    doll / dolly / 娃娃 / دمية
    teddy bear / plush bear / 泰迪熊 / دب محشو
    doll house / toy house / 娃娃屋 / بيت الدمى
Toys: Games
    board game / tabletop game / 桌游 / لعبة لوحية
    playing cards / card deck / 扑克牌 / ورق لعب
    chess set / chess board / 国际象棋 / شطرنج
Beauty: Skin
    face cream / moisturizer / 面霜 / كريم وجه
    soap / cleansing bar / 肥皂 / صابون
    sunscreen / sun lotion / 防晒霜 / واقي شمس
Beauty: Hair
    shampoo / hair wash / 洗发水 / شامبو
    hairbrush / comb / 梳子 / فرشاة شعر
    hair dryer / blow dryer / 吹风机 / مجفف شعر
Beauty: Scent
    perfume / fragrance / 香水 / عطر
    deodorant / body spray / 除臭剂 / مزيل عرق
    bath salts / bath crystals / 浴盐 / أملاح استحمام
"""


def _read_shelves(text: str) -> list[Leaf]:
    leaves = []
    department = aisle = ""
    for line in text.strip().splitlines():
        if ":" in line:
            department, aisle = (name.strip() for name in line.split(":"))
        else:
            leaves.append(Leaf(department, aisle, *(name.strip() for name in line.split("/"))))
    return leaves


LEAVES = _read_shelves(_SHELVES)

# A style is a direction of taste; its words stand in titles, and its colours are likelier.
STYLES = {
    "rustic": ("rustic", "farmhouse", "weathered", "country", "cottage", "homespun"),
    "modern": ("modern", "minimal", "sleek", "geometric", "urban", "angular"),
    "vintage": ("vintage", "retro", "antique", "classic", "nostalgic", "heritage"),
    "bold": ("bold", "neon", "electric", "vivid", "striking", "dazzling"),
    "natural": ("natural", "organic", "botanical", "leafy", "earthy", "undyed"),
    "luxury": ("luxury", "elegant", "opulent", "gilded", "regal", "premium"),
    "playful": ("playful", "whimsical", "cheerful", "cartoon", "quirky", "bubbly"),
    "rugged": ("rugged", "sturdy", "durable", "tough", "alpine", "expedition"),
}
STYLE_WORDS = [word for words in STYLES.values() for word in words]
WORDS_PER_STYLE = len(STYLE_WORDS) // len(STYLES)

# Name, Chinese name.
COLOURS = {
    "red": "红色",
    "blue": "蓝色",
    "green": "绿色",
    "yellow": "黄色",
    "black": "黑色",
    "white": "白色",
    "grey": "灰色",
    "brown": "棕色",
    "pink": "粉色",
    "purple": "紫色",
    "orange": "橙色",
    "gold": "金色",
}
_PALETTES = {
    "rustic": "brown white green orange",
    "modern": "black white grey blue",
    "vintage": "brown gold red green",
    "bold": "yellow orange pink red",
    "natural": "green brown white grey",
    "luxury": "gold black purple white",
    "playful": "pink yellow blue purple",
    "rugged": "black green grey orange",
}
# Rows of styles, numbers of colours.
PALETTES = np.array([[list(COLOURS).index(name) for name in _PALETTES[style].split()] for style in STYLES])

MATERIALS = {
    "Home": ("oak", "linen", "brass", "wool"),
    "Kitchen": ("steel", "ceramic", "glassware", "copper"),
    "Clothing": ("cotton", "denim weave", "leather", "merino"),
    "Electronics": ("aluminium", "polymer", "graphite", "silicone"),
    "Sports": ("nylon", "carbon", "rubber", "mesh"),
    "Garden": ("terracotta", "teak", "zinc", "bamboo"),
    "Toys": ("beech wood", "felt", "plush fabric", "cardboard"),
    "Beauty": ("almond oil", "aloe", "lavender", "sea mineral"),
}

EMOJI = ("✨", "🔥", "🎁", "💚")

_SYLLABLES = tuple("ba be bo da do fa fe ga go ka ki lo lu ma mi mo na ne no pa pe ra ri ro sa so ta te va vo".split())
_ENDINGS = tuple("ra lin mo dex via nor tis lo ron za".split())


def brand_names(count: int, draws: np.random.Generator) -> list[str]:
    """Make distinct brands of syllables.

    Args:
        count (`int`): How many; there are 270,000.
        draws (`np.random.Generator`): Chooses which.
    """
    first, ending = len(_SYLLABLES), len(_ENDINGS)
    numbers = draws.choice(first**3 * ending, size=count, replace=False)
    return [
        (
            _SYLLABLES[number % first]
            + _SYLLABLES[number // first % first]
            + _SYLLABLES[number // first**2 % first]
            + _ENDINGS[number // first**3]
        ).capitalize()
        for number in numbers.tolist()
    ]


# How a word is typed: as it is, or with one of these mistakes.
NUM_SPELLINGS = 4
# In lower case, with capitals, all in capitals.
NUM_CASES = 3


def misspell(word: str) -> list[str]:
    """Return the spellings of a word: as it is, with two letters swapped, one left out, and one doubled.

    Words of another script or of less than four letters have one spelling, which is given again.

    Example:
        >>> misspell("kettle")
        ['kettle', 'ketlte', 'kettl', 'keettle']
    """
    if len(word) < 4 or not word.isascii():
        return [word] * NUM_SPELLINGS
    middle = len(word) // 2
    swapped = word[:middle] + word[middle + 1] + word[middle] + word[middle + 2 :] if middle + 1 < len(word) else word
    return [word, swapped, word[:-1], word[:2] + word[1] + word[2:]]


class TypedWords:
    """All ways to type some words, numbered: word, then spelling, then case.

    Args:
        words (`list[str]`): Distinct words in lower case.
        ending (`str`): What is typed after each.
        taken (`set[str]`): Spellings that mean something else; a mistake that leads there is not made. Those of these
            words are added.
    """

    def __init__(self, words: list[str], ending: str, taken: set[str]) -> None:
        taken |= set(words)
        forms = []
        for word in words:
            for spelling in misspell(word):
                # A mistake that makes another word, or is made from two words, would be understood as the wrong one.
                correct = word if spelling != word and spelling in taken else spelling
                taken.add(correct)
                forms += [text + ending for text in (correct, correct.title(), correct.upper())]
        self.texts = pa.array(forms, pa.string())

    def numbers(self, word: np.ndarray, spelling: np.ndarray, case: np.ndarray) -> np.ndarray:
        """Number typed words: int64 rows of `texts`."""
        return (word * NUM_SPELLINGS + spelling) * NUM_CASES + case

    def meanings(self) -> dict[str, int]:
        """Return the number of the word behind each typed text."""
        return {text: number // (NUM_SPELLINGS * NUM_CASES) for number, text in enumerate(self.texts.to_pylist())}


__all__ = [
    "COLOURS",
    "EMOJI",
    "LEAVES",
    "MATERIALS",
    "NUM_CASES",
    "NUM_SPELLINGS",
    "PALETTES",
    "STYLES",
    "STYLE_WORDS",
    "WORDS_PER_STYLE",
    "Leaf",
    "TypedWords",
    "brand_names",
    "misspell",
]
