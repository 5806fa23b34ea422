"""What the built-in model can say, and the words by which its languages are recognised: data alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    """Sentences of one language. The names in braces are filled in by the model."""

    code: str
    space: str
    """What stands between two sentences."""
    common_words: str
    """Words by which the language is recognised, and which say nothing about the topic."""
    greetings: str
    greeting: str
    openings: tuple[str, ...]
    """With ``{prompt}``."""
    bodies: tuple[str, ...]
    """With ``{topic}``."""
    remembered: str
    """With ``{turn}`` and ``{earlier}``."""
    recalled: str
    """With ``{count}`` and ``{quotes}``."""
    nothing_recalled: str
    calling: str
    """With ``{tools}``."""
    tool_answer: str
    """With ``{tools}``, ``{result}`` and ``{prompt}``."""
    quotation: str = "“{}”"
    """How a quotation in a list is marked."""


ENGLISH = Phrases(
    code="en",
    space=" ",
    common_words="the a an and or but is are was were be been do does did has have had i you he she it we they me my "
    "your our this that these those what which who how why when where can could would should will please of in on at "
    "to for from with about not no yes if then there here some any get set find give tell show use make let",
    greetings="hello hi hey greetings",
    greeting="Hello! I am the built-in model of a server on your own machine: I need no network, and I always answer "
    "the same question in the same way. Ask me something, give me a tool to call, or talk to me in a chatroom and "
    "then ask me what you said.",
    openings=(
        "Here is a short answer to “{prompt}”.",
        "You wrote “{prompt}”, so let us look at that.",
        "Let me take “{prompt}” step by step.",
    ),
    bodies=(
        "What matters most is {topic}: begin with the simplest case, make sure that it works, and only then add the "
        "rest. If one part stays unclear, change one thing at a time and compare the results.",
        "The heart of it is {topic}. First collect what is already known, then decide what would count as a good "
        "result, and last try it on a small example before doing it at full size.",
        "To understand {topic}, it helps to ask three questions: what it is, what it is used for, and what happens "
        "without it. The third one usually brings the clearest answer.",
    ),
    remembered="This is turn {turn} of our conversation; earlier you said “{earlier}”.",
    recalled="Here is what you have told me so far ({count}): {quotes}. I keep it for as long as this chatroom exists.",
    nothing_recalled="You have not told me anything before this message. Write to me in a chatroom, and I will "
    "remember it: then ask me again what you said, and I will repeat it word by word.",
    calling="Let me look that up with {tools}.",
    tool_answer="I asked {tools}, and the result is: {result}. That answers “{prompt}” as far as the tool knows; ask "
    "again if you need more detail or want to compare it with something else.",
)

GERMAN = Phrases(
    code="de",
    space=" ",
    common_words="der die das den dem des ein eine einen einem und oder aber ist sind war waren sein ich du er sie es "
    "wir ihr mir mich mein meine dein dieser diese dieses was welche wer wie warum wann wo kann könnte soll bitte von "
    "im in am auf an zu zum für aus mit über nicht kein nein ja wenn dann hier auch noch gib sag zeig mach habe hast",
    greetings="hallo moin servus guten tag morgen abend",
    greeting="Hallo! Ich bin das eingebaute Modell eines Servers auf deinem eigenen Rechner: Ich brauche kein Netz und "
    "antworte auf dieselbe Frage immer gleich. Frag mich etwas, gib mir ein Werkzeug, oder schreib mir in einem "
    "Chatraum und frag mich dann, was du gesagt hast.",
    openings=(
        "Hier ist eine kurze Antwort auf „{prompt}“.",
        "Du hast „{prompt}“ geschrieben; sehen wir uns das an.",
        "Gehen wir „{prompt}“ Schritt für Schritt durch.",
    ),
    bodies=(
        "Am wichtigsten ist dabei {topic}: Beginne mit dem einfachsten Fall, prüfe, ob er funktioniert, und füge erst "
        "dann den Rest hinzu. Bleibt etwas unklar, dann ändere immer nur eine Sache und vergleiche die Ergebnisse.",
        "Im Kern geht es um {topic}. Sammle zuerst, was schon bekannt ist, lege dann fest, was ein gutes Ergebnis "
        "wäre, und probiere es zuletzt an einem kleinen Beispiel aus.",
    ),
    remembered="Das ist Runde {turn} unseres Gesprächs; vorher hast du gesagt: „{earlier}“.",
    recalled="Das hast du mir bisher gesagt ({count}): {quotes}. Ich behalte es, solange es diesen Chatraum gibt.",
    nothing_recalled="Vor dieser Nachricht hast du mir noch nichts gesagt. Schreib mir in einem Chatraum, dann merke "
    "ich es mir: Frag mich danach noch einmal, und ich wiederhole es Wort für Wort.",
    calling="Ich sehe mit {tools} nach.",
    tool_answer="Ich habe {tools} gefragt, und das Ergebnis ist: {result}. Das beantwortet „{prompt}“, soweit das "
    "Werkzeug es weiß; frag nach, wenn du mehr Einzelheiten brauchst.",
    quotation="„{}“",
)

FRENCH = Phrases(
    code="fr",
    space=" ",
    common_words="le la les un une des du de et ou mais est sont était être je tu il elle nous vous ils elles moi mon "
    "ma mes ton ta ce cette ces que quel quelle qui comment pourquoi quand où peux peut veuillez dans sur à au aux "
    "pour avec par ne pas non oui si alors ici quoi fait fais donne dis montre ai as plaît",
    greetings="bonjour salut bonsoir coucou",
    greeting="Bonjour ! Je suis le modèle intégré d'un serveur qui tourne sur votre propre machine : je n'ai pas "
    "besoin de réseau et je réponds toujours de la même façon à la même question. Posez-moi une question, donnez-moi "
    "un outil, ou écrivez-moi dans un salon et demandez-moi ce que vous avez dit.",
    openings=(
        "Voici une courte réponse à « {prompt} ».",
        "Vous avez écrit « {prompt} » ; regardons cela de plus près.",
        "Prenons « {prompt} » étape par étape.",
    ),
    bodies=(
        "Le plus important ici, c'est {topic} : commencez par le cas le plus simple, vérifiez qu'il fonctionne, puis "
        "ajoutez le reste. Si un point reste obscur, ne changez qu'une chose à la fois et comparez les résultats.",
        "Au fond, il s'agit de {topic}. Rassemblez d'abord ce que l'on sait déjà, décidez ensuite de ce qui serait un "
        "bon résultat, et essayez enfin sur un petit exemple.",
    ),
    remembered="C'est le tour {turn} de notre conversation ; plus tôt, vous avez dit « {earlier} ».",
    recalled="Voici ce que vous m'avez dit jusqu'ici ({count}) : {quotes}. Je le garde tant que ce salon existe.",
    nothing_recalled="Vous ne m'avez encore rien dit avant ce message. Écrivez-moi dans un salon et je m'en "
    "souviendrai : demandez-moi ensuite ce que vous avez dit, et je le répéterai mot pour mot.",
    calling="Je vérifie avec {tools}.",
    tool_answer="J'ai consulté {tools}, et voici le résultat : {result}. Cela répond à « {prompt} » autant que l'outil "
    "le sait ; redemandez-moi si vous voulez plus de détails.",
    quotation="« {} »",
)

SPANISH = Phrases(
    code="es",
    space=" ",
    common_words="el la los las un una unos unas y o pero es son era ser está yo tú él ella nosotros ellos me mi tu su "
    "este esta estos eso que qué cuál quién cómo por porqué cuándo dónde puede puedes favor de del en al a para con "
    "sobre no sí si entonces aquí hace haz dame di muestra hay he has",
    greetings="hola buenas buenos días tardes noches",
    greeting="¡Hola! Soy el modelo integrado de un servidor que funciona en tu propia máquina: no necesito red y "
    "siempre respondo igual a la misma pregunta. Pregúntame algo, dame una herramienta, o escríbeme en una sala de "
    "chat y luego pregúntame qué dijiste.",
    openings=(
        "Aquí tienes una respuesta breve a «{prompt}».",
        "Has escrito «{prompt}»; veámoslo con calma.",
        "Veamos «{prompt}» paso a paso.",
    ),
    bodies=(
        "Lo más importante aquí es {topic}: empieza por el caso más sencillo, comprueba que funciona y solo entonces "
        "añade el resto. Si algo no queda claro, cambia una sola cosa cada vez y compara los resultados.",
        "En el fondo se trata de {topic}. Primero reúne lo que ya se sabe, después decide qué sería un buen resultado "
        "y por último pruébalo con un ejemplo pequeño.",
    ),
    remembered="Este es el turno {turn} de nuestra conversación; antes dijiste «{earlier}».",
    recalled="Esto es lo que me has dicho hasta ahora ({count}): {quotes}. Lo guardo mientras exista esta sala.",
    nothing_recalled="Todavía no me has dicho nada antes de este mensaje. Escríbeme en una sala de chat y lo "
    "recordaré: después pregúntame otra vez qué dijiste, y lo repetiré palabra por palabra.",
    calling="Voy a consultarlo con {tools}.",
    tool_answer="He consultado {tools}, y el resultado es: {result}. Eso responde a «{prompt}» hasta donde sabe la "
    "herramienta; vuelve a preguntar si necesitas más detalles.",
    quotation="«{}»",
)

RUSSIAN = Phrases(
    code="ru",
    space=" ",
    common_words="это как что кто где когда почему какой какая какие для или если меня мне мой моя твой они она оно "
    "есть был была было быть так тут там пожалуйста скажи дай покажи можно нужно про над под без при",
    greetings="привет здравствуй здравствуйте добрый день вечер утро",
    greeting="Привет! Я встроенная модель сервера, который работает на вашем компьютере: мне не нужна сеть, и на один "
    "и тот же вопрос я всегда отвечаю одинаково. Спросите меня о чём-нибудь, дайте мне инструмент или напишите в чат "
    "и спросите, что вы говорили.",
    openings=("Вот краткий ответ на «{prompt}».", "Вы написали «{prompt}»; давайте разберёмся."),
    bodies=(
        "Главное здесь — {topic}: начните с самого простого случая, убедитесь, что он работает, и только потом "
        "добавляйте остальное. Если что-то неясно, меняйте по одной вещи за раз и сравнивайте результаты.",
        "Суть вопроса — {topic}. Сначала соберите то, что уже известно, затем решите, какой результат был бы хорошим, "
        "и наконец попробуйте на небольшом примере.",
    ),
    remembered="Это {turn}-й вопрос нашей беседы; раньше вы сказали: «{earlier}».",
    recalled="До этого вы написали мне сообщений: {count}. Вот они: {quotes}. Я помню их, пока существует этот чат.",
    nothing_recalled="До этого сообщения вы мне ещё ничего не говорили. Напишите мне в чат, и я запомню: потом "
    "спросите ещё раз, и я повторю слово в слово.",
    calling="Сейчас посмотрю с помощью {tools}.",
    tool_answer="Я спросил {tools}, и результат такой: {result}. Это ответ на «{prompt}», насколько его знает "
    "инструмент; спросите ещё раз, если нужны подробности.",
    quotation="«{}»",
)

JAPANESE = Phrases(
    code="ja",
    space="",
    common_words="",
    greetings="こんにちは こんばんは おはよう おはようございます はじめまして やあ",
    greeting="こんにちは。私はこのパソコンの中のサーバーに組み込まれたモデルです。ネットワークは要りません。同じ質問には"
    "いつも同じように答えます。質問をするか、ツールを渡すか、チャットルームで話してから何を言ったか聞いてみてください。",
    openings=("「{prompt}」について、簡単にお答えします。", "「{prompt}」ですね。順番に見ていきましょう。"),
    bodies=(
        "一番大切なのは{topic}です。まず簡単な場合から始めて、うまく動くことを確かめ、それから残りを加えます。"
        "分からないところがあれば、一度に一つだけ変えて結果を比べてください。",
        "要点は{topic}です。最初に分かっていることを集め、次に良い結果とは何かを決め、最後に小さな例で試します。",
    ),
    remembered="これは会話の{turn}回目です。前に「{earlier}」と言っていましたね。",
    recalled="これまでに{count}回、話してくれました。{quotes}です。このチャットルームがある間は覚えています。",
    nothing_recalled="このメッセージの前には、まだ何も聞いていません。チャットルームで話してくれれば覚えておきます。"
    "その後でもう一度聞いてくれたら、言葉どおりに繰り返します。",
    calling="{tools}で調べてみます。",
    tool_answer="{tools}で調べた結果は、{result}です。「{prompt}」への答えは、ツールの分かる範囲では以上です。"
    "もっと詳しく知りたいときは、もう一度聞いてください。",
    quotation="「{}」",
)

CHINESE = Phrases(
    code="zh",
    space="",
    common_words="",
    greetings="你好 您好 嗨 早上好 晚上好",
    greeting="你好！我是内置在本机服务器里的模型，不需要网络，对同样的问题总是给出同样的回答。"
    "你可以问我问题，给我一个工具，或者在聊天室里和我说话，然后问我你说过什么。",
    openings=("关于“{prompt}”，这里是一个简短的回答。", "你写的是“{prompt}”，我们一步一步来看。"),
    bodies=(
        "最重要的是{topic}：先从最简单的情况开始，确认它能行，再加上其余的部分。"
        "如果有不清楚的地方，每次只改一处，然后比较结果。",
        "问题的核心是{topic}。先收集已经知道的东西，再决定什么才算好的结果，最后用一个小例子试一试。",
    ),
    remembered="这是我们对话的第{turn}轮，之前你说过“{earlier}”。",
    recalled="在这之前你对我说过{count}句话：{quotes}。只要这个聊天室还在，我就会记得。",
    nothing_recalled="在这条消息之前，你还没有对我说过什么。在聊天室里告诉我，我就会记住，"
    "然后再问我一次，我会一字不差地重复。",
    calling="我用{tools}查一下。",
    tool_answer="我用{tools}查过了，结果是：{result}。就工具所知，这就是“{prompt}”的答案。如果需要更多细节，请再问我。",
)

KOREAN = Phrases(
    code="ko",
    space=" ",
    common_words="",
    greetings="안녕 안녕하세요 반가워요",
    greeting="안녕하세요! 저는 이 컴퓨터에서 도는 서버에 들어 있는 모델입니다. 네트워크가 필요 없고, 같은 질문에는 "
    "언제나 똑같이 대답합니다. 질문을 하거나, 도구를 주거나, 대화방에서 이야기한 다음 무슨 말을 했는지 물어보세요.",
    openings=("“{prompt}”에 대해 짧게 답해 드리겠습니다.", "“{prompt}”이라고 하셨네요. 차근차근 살펴보겠습니다."),
    bodies=(
        "가장 중요한 것은 {topic}입니다. 가장 쉬운 경우부터 시작해서 잘 되는지 확인하고, 그다음에 나머지를 더하세요. "
        "분명하지 않은 점이 있으면 한 번에 하나씩만 바꾸고 결과를 비교해 보세요.",
        "핵심은 {topic}입니다. 먼저 이미 아는 것을 모으고, 어떤 결과가 좋은지 정한 다음, 작은 예로 시험해 보세요.",
    ),
    remembered="이번이 대화의 {turn}번째 차례이고, 앞에서 “{earlier}”라고 하셨습니다.",
    recalled="그전에 {count}번 말씀하셨습니다: {quotes}. 이 대화방이 있는 동안 기억하겠습니다.",
    nothing_recalled="이 메시지 전에는 아직 아무 말씀도 하지 않으셨습니다. 대화방에서 말씀해 주시면 기억하겠습니다. "
    "나중에 다시 물어보시면 그대로 되풀이해 드리겠습니다.",
    calling="{tools}(으)로 찾아보겠습니다.",
    tool_answer="{tools}에 물어본 결과는 {result}입니다. 도구가 아는 한 이것이 “{prompt}”의 답입니다. "
    "더 자세한 내용이 필요하면 다시 물어보세요.",
)
