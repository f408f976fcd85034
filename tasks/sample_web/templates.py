"""The eight site templates of the sample web, from table layout to an HTML5 app.

Reads nothing and writes nothing: `render_page` is a pure function of a page and a random generator. The templates follow
what common publishing software emits (semantic articles, wiki markup, forum posts, table layout, hashed class names), with
the boilerplate that an extractor has to remove: navigation, cookie notice, breadcrumbs, related links,
comments, newsletter form, scripts.
"""

import html
import json
import random
import re
from collections.abc import Callable

from tasks.sample_web.foreign import LABELS
from tasks.sample_web.html import Page, body, comments, footer, head, linked_data, links, navigation, newsletter


def render_page(page: Page, rng: random.Random) -> str:
    """The whole HTML document. Broken sites lack closing tags and have stray ones, as browsers tolerate."""
    document = TEMPLATES[page.site.template](page, rng)
    return break_markup(document, rng) if page.site.is_broken else document


def break_markup(document: str, rng: random.Random) -> str:
    """Unclosed paragraphs and entries, bare ampersands, unquoted attributes, a closing tag too many."""
    document = re.sub(r"</p>|</li>", lambda match: match[0] if rng.random() < 0.4 else "", document)
    document = document.replace("&amp;", "&")
    document = re.sub(r'class="([a-z]+)"', r"class=\1", document)
    return document.replace("</body>", "</div></span></b></body>")


def blog(page: Page, rng: random.Random) -> str:
    """A post of a blog, as WordPress writes it."""
    site, label = page.site, LABELS[page.site.language]
    comment = '<li class="comment depth-1"><b class="fn">{who}</b><div class="comment-content"><p>{text}</p></div></li>'
    return f"""<!DOCTYPE html>
<html lang="{site.language}">
{head(page, linked_data(page))}
<body class="single single-post"><div id="page" class="site">
<header id="masthead" class="site-header"><a href="/" rel="home">{html.escape(site.name)}</a>
<nav id="site-navigation" class="main-navigation"><ul class="menu">{links(navigation(site))}</ul></nav></header>
<div id="cookie-law-info-bar" class="notice"><span>{label.cookies} <a href="/privacy">{label.more}</a></span></div>
<div id="primary" class="content-area"><main id="main" class="site-main">
<article id="post-{rng.randrange(9999)}" class="post type-post hentry">
<header class="entry-header"><h1 class="entry-title">{html.escape(page.title)}</h1>
<div class="entry-meta"><time class="entry-date" datetime="{page.date}">{page.date:%d.%m.%Y}</time>
<span class="byline"><a class="author" href="/author/">{html.escape(page.author)}</a></span></div></header>
<div class="entry-content">
{body(page, rng)}
</div>
<footer class="entry-footer"><div class="sharedaddy">{links((("#x", "X"), ("#f", "Facebook"), ("#m", "E-Mail")))}</div></footer>
</article>
<div id="comments" class="comments-area"><h2 class="comments-title">{label.comments}</h2>
<ol class="comment-list">{comments(page, comment)}</ol></div></main></div>
<aside id="secondary" class="widget-area"><section class="widget"><h2>{label.related}</h2>
<ul>{links(page.related)}</ul></section>{newsletter(site)}</aside>
{footer(site)}</div></body></html>"""


def news(page: Page, rng: random.Random) -> str:
    """An article of a newspaper, with semantic elements."""
    site, label = page.site, LABELS[page.site.language]
    comment = '<div class="comment"><span class="comment-author">{who}</span><p class="comment-text">{text}</p></div>'
    teaser = '<div class="teaser"><a class="teaser__link" href="{}">{}</a></div>'
    return f"""<!doctype html>
<html lang="{site.language}" class="no-js">
{head(page, linked_data(page))}
<body><div class="consent-banner" role="dialog"><p>{label.cookies}</p><button>{label.accept}</button></div>
<header class="page-header"><div class="logo"><a href="/">{html.escape(site.name)}</a></div>
<nav class="page-nav" role="navigation"><ul>{links(navigation(site))}</ul></nav></header>
<nav class="breadcrumb"><a href="/">{label.home}</a> &rsaquo; <a href="/s">{html.escape(site.sections[0])}</a></nav>
<main class="layout"><article class="article" itemscope itemtype="https://schema.org/NewsArticle">
<h1 class="article__title" itemprop="headline">{html.escape(page.title)}</h1>
<div class="article__byline byline"><span itemprop="author">{html.escape(page.author)}</span>,
<time itemprop="datePublished" datetime="{page.date}">{page.date}</time></div>
<div class="social-share"><a href="#">{label.share}</a></div>
<div class="article__body" itemprop="articleBody">
{body(page, rng, '<p class="article__paragraph">{}</p>')}
</div></article>
<aside class="sidebar related-stories"><h3>{label.related}</h3>{links(page.related, teaser)}</aside>
<section class="comments" id="comments"><h3>{label.comments}</h3>{comments(page, comment)}</section>
{newsletter(site)}</main>
{footer(site)}</body></html>"""


def wiki(page: Page, rng: random.Random) -> str:
    """A page of a wiki, as MediaWiki writes it."""
    site, label = page.site, LABELS[page.site.language]
    comment = '<dl class="comment"><dt>{who}</dt><dd>{text}</dd></dl>'
    return f"""<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="{site.language}">
{head(page)}
<body class="mediawiki ltr"><div id="mw-page-base" class="noprint"></div>
<div id="siteNotice" class="notice cookie-notice">{label.cookies}</div>
<div id="content" class="mw-body" role="main">
<header class="mw-body-header"><h1 id="firstHeading" class="firstHeading">{html.escape(page.title)}</h1></header>
<div id="bodyContent"><div id="siteSub" class="noprint">{html.escape(site.name)}</div>
<div id="mw-content-text"><div class="mw-parser-output">
{body(page, rng)}
</div></div>
<div id="catlinks" class="catlinks">{links(page.related, '<span><a href="{}">{}</a></span> | ')}</div></div></div>
<div id="talk-page" class="comments">{comments(page, comment)}</div>
<div id="mw-navigation"><div id="mw-panel" class="portal" role="navigation">
<ul>{links(navigation(site))}</ul></div><div id="p-search" role="search"><form><input name="search"></form></div></div>
<div id="footer" role="contentinfo"><ul><li id="footer-info-lastmod">{page.date}</li>
<li>&copy; {html.escape(site.name)}</li><li><a href="/privacy">{label.privacy}</a></li></ul></div>
</body></html>"""


def forum(page: Page, rng: random.Random) -> str:
    """A thread of a forum in XHTML."""
    site, label = page.site, LABELS[page.site.language]
    reply = (
        '<div class="comment reply post bg2"><p class="author">{who}</p><div class="comment-body">{text}</div></div>'
    )
    return f"""<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">
<html lang="{site.language}">
{head(page)}
<body id="phpbb" class="nojs section-viewtopic"><div id="wrap">
<div id="page-header" class="headerbar"><a class="logo" href="/index.php">{html.escape(site.name)}</a>
<div class="navbar"><ul class="linklist navlinks">{links(navigation(site))}</ul></div></div>
<div class="rules cookies-notice">{label.cookies}</div>
<div id="page-body"><h2 class="topic-title"><a href="{html.escape(page.path)}">{html.escape(page.title)}</a></h2>
<div class="topic-actions pagination"><a href="#p2">2</a> &bull; <a href="#p3">3</a></div>
<div id="p1" class="post bg1"><div class="postbody"><div class="content">
{body(page, rng)}
</div></div>
<dl class="postprofile"><dt>{html.escape(page.author)}</dt><dd>{page.date}</dd></dl></div>
<div id="comments" class="comments replies">{comments(page, reply)}</div>
<div class="related-topics"><ul>{links(page.related)}</ul></div></div>
{footer(site)}</div></body></html>"""


def recipe(page: Page, rng: random.Random) -> str:
    """A page of a recipe site."""
    site, label = page.site, LABELS[page.site.language]
    comment = '<li class="review comment"><strong>{who}</strong> &#9733;&#9733;&#9733;&#9733; <span>{text}</span></li>'
    return f"""<!DOCTYPE html>
<html lang="{site.language}">
{head(page, linked_data(page))}
<body class="template-card"><a class="skip-link" href="#content">&darr;</a>
<header class="top-bar"><div class="brand">{html.escape(site.name)}</div>
<nav class="nav-primary"><ul>{links(navigation(site))}</ul></nav></header>
<ul class="breadcrumbs"><li><a href="/">{label.home}</a></li><li>{html.escape(page.title)}</li></ul>
<div id="content" class="main-content"><h1>{html.escape(page.title)}</h1>
<p class="post-meta">{html.escape(page.author)} &middot; {page.date:%d.%m.%Y}</p>
<div class="post-content">
{body(page, rng)}
</div>
<div class="share-buttons"><button>{label.share}</button><button onclick="window.print()">&#9113;</button></div>
<section id="reviews" class="comments"><h3>{label.comments}</h3><ul>{comments(page, comment)}</ul></section></div>
<div class="sidebar" role="complementary"><h4>{label.related}</h4><ul>{links(page.related)}</ul>{newsletter(site)}</div>
<div class="cookie-popup modal" aria-hidden="true">{label.cookies} <button>{label.accept}</button></div>
{footer(site)}</body></html>"""


def corporate(page: Page, rng: random.Random) -> str:
    """A page of a company, from nested div elements."""
    site, label = page.site, LABELS[page.site.language]
    comment = '<div class="media comment"><h5>{who}</h5><p>{text}</p></div>'
    return f"""<!DOCTYPE html>
<html lang="{site.language}">
{head(page)}
<body><div class="wrapper"><div class="navbar navbar-default"><div class="container">
<a class="navbar-brand" href="/">{html.escape(site.name)}</a><ul class="nav navbar-nav">{links(navigation(site))}</ul></div></div>
<div class="jumbotron hero"><div class="container"><div class="row"><h1>{html.escape(page.title)}</h1></div></div></div>
<div class="container"><div class="row"><div class="col-md-8"><div class="page-content rich-text">
{body(page, rng)}
</div><div class="author-box"><img src="/a.png" alt=""><span>{html.escape(page.author)}</span> <i>{page.date}</i></div>
<div class="comments">{comments(page, comment)}</div></div>
<div class="col-md-4 sidebar"><div class="panel"><h4>{label.related}</h4><ul>{links(page.related)}</ul></div>
{newsletter(site)}</div></div></div>
<div class="cookie-consent"><div class="container">{label.cookies} <a class="btn">{label.accept}</a></div></div>
{footer(site)}</div></body></html>"""


def table(page: Page, rng: random.Random) -> str:
    """A page of the 1990s, laid out with tables."""
    site, label = page.site, LABELS[page.site.language]
    comment = "<DT><FONT SIZE=2><B>{who}</B></FONT><DD><FONT SIZE=2>{text}</FONT>"
    entry = '<TR><TD BGCOLOR="#CCCCFF"><FONT SIZE=2><A HREF="{}">{}</A></FONT></TD></TR>'
    return f"""<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2//EN">
<HTML>
{head(page)}
<BODY BGCOLOR="#FFFFFF" TEXT="#000000" LINK="#0000FF">
<CENTER><FONT SIZE=5 COLOR="#000066">{html.escape(site.name)}</FONT></CENTER>
<DIV ID="navigation" CLASS="menu" ALIGN=left><TABLE WIDTH=150 BGCOLOR="#000066"><TR><TD>
<TABLE BORDER=1 WIDTH="100%">{links(navigation(site), entry)}</TABLE></TD></TR></TABLE></DIV>
<H1>{html.escape(page.title)}</H1>
{body(page, rng, "<P>{}</P>")}
<HR NOSHADE>
<DIV CLASS="comments" ALIGN=left><DL>{comments(page, comment)}</DL></DIV>
<DIV CLASS="footer" ALIGN=center><FONT SIZE=1>{label.cookies}<BR>{label.home} | {label.contact} | {html.escape(page.author)} {page.date:%d/%m/%y}</FONT></DIV>
</BODY></HTML>"""


def app(page: Page, rng: random.Random) -> str:
    """A page of a web application, with hashed class names."""
    site, label = page.site, LABELS[page.site.language]
    comment = '<div class="css-9k3 comment" data-testid="comment"><div>{who}</div><div>{text}</div></div>'
    card = '<div class="css-77q card"><a href="{}" data-testid="card-link"><div>{}</div></a></div>'
    state = json.dumps(
        {"page": page.path, "build": f"{rng.getrandbits(40):x}", "flags": {"comments": True, "dark": False}}
    )
    return f"""<!DOCTYPE html><html lang="{site.language}" data-theme="light">
{head(page)}<body><div id="__app"><div class="css-1f2"><header class="css-a81"><a href="/">{html.escape(site.name)}</a>
<nav class="css-b02">{links(navigation(site), '<a class="css-l1" href="{}">{}</a>')}</nav></header>
<main class="css-m44"><section data-testid="content" class="css-c19"><header><h1 class="css-h1">{html.escape(page.title)}</h1>
<div class="css-d3 byline"><span>{html.escape(page.author)}</span><time datetime="{page.date}">{page.date}</time></div></header>
<div class="css-t5 article-content">
{body(page, rng, '<p class="css-p0">{}</p>')}
</div></section>
<section class="css-r2 related" aria-label="{label.related}">{links(page.related, card)}</section>
<section class="css-k8 comments" data-testid="comments">{comments(page, comment)}</section></main>
<div class="css-z1 cookie-banner" role="alertdialog"><div>{label.cookies}</div><button>{label.accept}</button></div>
{footer(site)}</div></div>
<script id="__STATE__" type="application/json">{state}</script><script src="/static/{site.name[:1].lower()}.js" defer></script>
</body></html>"""


TEMPLATES: dict[str, Callable[[Page, random.Random], str]] = {
    "blog": blog,
    "news": news,
    "wiki": wiki,
    "forum": forum,
    "recipe": recipe,
    "corporate": corporate,
    "table": table,
    "app": app,
}
