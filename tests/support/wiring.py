"""Stages wired to the sources that their settings name, as `flows.pipeline.dag` wires them."""

from tasks.artifacts.manifest import Attributes, BaseModel, Crawl, Documents, Tokenizer, Tokens
from tasks.artifacts.step import Step
from tasks.dedup import stage as dedup_stage
from tasks.dedup.stage import DedupConfig
from tasks.filter import stage as filter_stage
from tasks.filter.attributes import AttributesConfig, compute_attributes
from tasks.filter.quality_classifier import quality_classifier
from tasks.filter.stage import FilterConfig
from tasks.ingest import stage as ingest_stage
from tasks.ingest.inputs import web_archives
from tasks.ingest.stage import IngestConfig
from tasks.pretrain import stage as pretrain_stage
from tasks.pretrain.open_weights import open_weights
from tasks.pretrain.stage import PretrainConfig
from tasks.tokenizer import train as tokenizer_stage
from tasks.tokenizer.train import TokenizerConfig
from tasks.web.language_id import language_model
from tasks.web.ut1 import blocklists


def ingest(config: IngestConfig) -> Step[Documents]:
    crawl, prefilter = web_archives(config, world_seed=1), ingest_stage.prefilter_model(config)
    return ingest_stage.ingest(crawl, prefilter, blocklists(config.blocklists), config)


def attributes(
    documents: Step[Documents], config: AttributesConfig, crawl: Step[Crawl] | None = None
) -> Step[Attributes]:
    classifier = quality_classifier(config.quality_model)
    lists, languages = blocklists(config.blocklists), language_model(config.language_model)
    return compute_attributes(documents, crawl, languages, lists, classifier, config)


def filter(documents: Step[Documents], config: FilterConfig) -> Step[Documents]:
    return filter_stage.filter(documents, attributes(documents, config), config)


def dedup(documents: Step[Documents], config: DedupConfig) -> Step[Documents]:
    earlier = dedup_stage.earlier_documents(config.against)
    return dedup_stage.dedup(documents, earlier, dedup_stage.evaluation_sets(config.eval_sets), config)


def tokenizer(documents: Step[Documents], config: TokenizerConfig) -> Step[Tokenizer]:
    vocabulary = tokenizer_stage.existing_vocabulary(config.vocabulary)
    compared = tokenizer_stage.compared_vocabularies(config.compared_with)
    return tokenizer_stage.tokenizer(documents, vocabulary, compared, config)


def pretrain(tokens: Step[Tokens], tokenizer: Step[Tokenizer], config: PretrainConfig) -> Step[BaseModel]:
    mixture = pretrain_stage.more_tokens(config.mixture)
    return pretrain_stage.pretrain(tokens, tokenizer, open_weights(config.initial_model), mixture, config)
